"""What scripts and the command line call: it joins training, exporting and the wire."""

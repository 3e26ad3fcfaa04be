"""The verbs of the command line: one verb, one file, imported only when it is called."""

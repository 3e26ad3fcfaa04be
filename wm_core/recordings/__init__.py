"""Other people's recordings, in and out: what is read becomes Steps, and Steps become files."""

"""Where the numbers and videos of a run go besides its own files; each is imported when named."""

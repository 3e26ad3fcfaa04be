"""Experience at rest: one writer, one reader."""

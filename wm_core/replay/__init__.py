"""Replay draws batches of windows from stored experience; it never needs torch."""

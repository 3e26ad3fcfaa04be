"""Measures updates of other DreamerV3s beside ours: ``make bench-peers``."""

"""Keeps experience on disk: one way in, one way out."""

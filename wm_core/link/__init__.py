"""Joins robots and a trainer: the two ends of the wire between robots and a trainer."""

"""The two ends of the wire between robots and a trainer."""

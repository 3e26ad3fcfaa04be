"""Decides when a tick runs, and measures rates and delays."""

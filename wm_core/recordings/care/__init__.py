"""Looks after stored experience: list, describe, verify, draw, repair, split, free."""

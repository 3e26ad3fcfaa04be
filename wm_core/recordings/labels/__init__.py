"""Rewards for recordings that have none: from a formula, a function, or frames that are marked."""

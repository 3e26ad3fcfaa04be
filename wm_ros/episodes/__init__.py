"""Turns ticks into steps of episodes with their rewards."""

"""Keeps every command within its limits, and says when the robot must stop."""

"""Learns what to do, inside what the world model imagines."""

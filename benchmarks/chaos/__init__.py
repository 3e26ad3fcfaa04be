"""Breaks robots, service, disks and network on purpose, and accounts for every step afterwards."""

"""Runs a node as a process: signals, priority and its folder."""

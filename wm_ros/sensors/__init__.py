"""Turns the messages of sensors into observations: a file for each kind, and a table."""

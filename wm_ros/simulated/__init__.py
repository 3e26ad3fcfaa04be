"""Plays the robot that a robot file describes."""

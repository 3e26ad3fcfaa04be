"""Reads, checks and changes the ROS parameters of the nodes."""

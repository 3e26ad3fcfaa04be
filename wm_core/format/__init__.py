"""Defines a chunk of experience: Steps as ROS messages (CDR) in an MCAP file."""

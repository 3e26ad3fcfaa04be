"""Holds the robot's end of the wire: spool, uploader, policy client."""

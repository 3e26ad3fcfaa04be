"""What a chunk of experience is: Steps as ROS messages (CDR) in an MCAP file."""

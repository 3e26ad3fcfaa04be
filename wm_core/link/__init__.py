"""What carries experience to the trainer and policies back; never torch, never rclpy."""

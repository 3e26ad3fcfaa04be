"""What the robot and the trainer agree on: numpy and pydantic, never torch and never rclpy."""

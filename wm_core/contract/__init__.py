"""Defines what robot and trainer agree on: numpy and pydantic, never torch and never rclpy."""

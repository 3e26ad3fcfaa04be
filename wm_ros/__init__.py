"""Runs the robot's side: ROS 2 nodes around an ONNX policy; numpy and onnxruntime, never torch."""

"""Exports a trained agent to one ONNX file that proves itself on the robot."""

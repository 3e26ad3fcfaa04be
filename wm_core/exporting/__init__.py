"""From a trained agent to one ONNX file that a robot can trust."""

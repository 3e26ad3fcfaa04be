"""Says how the robot is doing: reasons, diagnostics and files."""

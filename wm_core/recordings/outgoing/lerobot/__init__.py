"""LeRobotDataset v3.0, written without the package of that name."""

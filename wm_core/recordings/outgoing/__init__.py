"""What a store holds, written as files that other programs read: LeRobot, rosbag2, MCAP, npz."""

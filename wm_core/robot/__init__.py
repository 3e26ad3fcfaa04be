"""Says what a robot is, from one YAML file: sensors, actuators, reward, episodes and safety."""

from wm_core.robot.robot_file import RobotFile as RobotFile

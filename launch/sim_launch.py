"""Starts a simulated robot and, through robot_launch.py, the same policy node as on a real one.

Arguments of robot_launch.py may be given here too: ``trainer_url:=http://127.0.0.1:8765``.
A task with choices: ``task:=seek_discrete command_type:=index``.  A robot that a file describes,
with its own task: ``robot_file:=planar_arm``.
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from wm_ros.process.launching import remappings, robot_path

SHARE = FindPackageShare("wm_ros")

#: name, default, what it is
ARGUMENTS = (
    ("task", "", "task of `wm tasks`, or a Gymnasium id; empty: as robot_file says, or seek"),
    ("image_size", "64", "height and width of the camera's image in pixels"),
    ("rate_factor", "1.0", "simulated seconds per second"),
    (
        "use_sim_time",
        PythonExpression(["'false' if ", LaunchConfiguration("rate_factor"), " == 1 else 'true'"]),
        "take time from /clock; true where rate_factor is not 1",
    ),
    ("namespace", "", "namespace of every node and topic"),
    ("params_file", PathJoinSubstitution([SHARE, "config", "wm_ros.yaml"]), "YAML of parameters"),
    ("use_respawn", "false", "start a node anew when it has ended"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
    ("robot_file", "", "YAML that describes the robot: a path, or the name of one of robots/"),
    ("camera_topic", "", "topic of the camera, such as /camera/image_raw; empty: image_raw"),
    ("remap", "", "other topics and services: 'cmd_vel:=base/cmd_vel odom:=/odom'"),
    ("frozen_s", "0.0", "seconds of the same image that stop it; 0: rendered ones may be equal"),
    ("command_type", "", "message that carries the command, such as twist_stamped or twist"),
)


def _actions(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the simulated robot, once every argument is known."""
    got = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    parameters = {
        "image_size": int(got["image_size"]),
        "rate_factor": float(got["rate_factor"]),
        "use_sim_time": got["use_sim_time"].lower() == "true",
    }
    got["robot_file"] = robot_path(got["robot_file"], f"{SHARE.perform(context)}/robots")
    parameters |= {n: got[n] for n in ("task", "robot_file", "command_type") if got[n]}
    return [
        Node(
            package="wm_ros",
            executable="sim_node",
            name="sim",
            namespace=got["namespace"],
            parameters=[got["params_file"], parameters],
            remappings=remappings(got["camera_topic"], got["remap"]),
            ros_arguments=["--log-level", got["log_level"]],
            respawn=got["use_respawn"].lower() == "true",
            respawn_delay=2.0,
            output="screen",
        )
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe what ``ros2 launch wm_ros sim_launch.py`` starts."""
    robot = PathJoinSubstitution([SHARE, "launch", "robot_launch.py"])
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=t) for n, d, t in ARGUMENTS),
            # First: it chooses the transport profile, which the simulated camera needs as well.
            IncludeLaunchDescription(PythonLaunchDescriptionSource(robot)),
            OpaqueFunction(function=_actions),
        ]
    )

"""Starts the policy node and, if one is named, the launch file of the robot's driver.

Arguments that are left empty are decided by the parameter file, or else by the node's defaults.
"""

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    PopLaunchConfigurations,
    PushLaunchConfigurations,
    SetEnvironmentVariable,
    UnsetLaunchConfiguration,
)
from launch.launch_description_sources import AnyLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

from wm_ros.process.launching import driver_path, remappings, robot_path

SHARE = FindPackageShare("wm_ros")
CONFIG = [SHARE, "config"]

#: name, default, what it is
ARGUMENTS = (
    ("namespace", "", "namespace of every node and topic"),
    ("use_sim_time", "false", "take time from /clock"),
    ("params_file", PathJoinSubstitution([*CONFIG, "wm_ros.yaml"]), "YAML of parameters"),
    ("autostart", "true", "configure and activate without a lifecycle manager"),
    ("use_respawn", "false", "start a node anew when it has ended"),
    ("log_level", "info", "debug, info, warn, error or fatal"),
    ("robot_file", "", "YAML that describes the robot: a path, or the name of one of robots/"),
    ("camera_topic", "", "topic of the camera, such as /camera/image_raw; empty: image_raw"),
    ("remap", "", "other topics and services: 'cmd_vel:=base/cmd_vel odom:=/odom'"),
    ("command_type", "", "message that carries the command, such as twist_stamped or twist"),
    ("trainer_url", "", "address of `wm serve`; empty: no trainer"),
    ("token_file", "", "file with this robot's token for the trainer"),
    ("ca_file", "", "file of the certificates that the trainer's must be signed by"),
    ("policy_dir", "", "folder of a policy or of numbered versions; empty: the trainer's"),
    ("state_dir", "", "folder for the node's reports; empty: ~/.ros/wm_ros/<namespace>/policy"),
    ("spool_dir", "", "folder for experience that waits; empty: <state_dir>/spool"),
    ("robot", "", "name under which experience is stored"),
    (
        "sensors",
        "",
        "names of the sensors, such as image,wrist,joint_states; the first sets the pace",
    ),
    ("frozen_s", "", "seconds of the same image, while it moves, that count as a frozen camera"),
    ("driver_launch", "", "launch file of the robot's driver; empty: none"),
)
#: arguments that are parameters of the node: those that are passed on if set
SWITCHES = ("use_sim_time", "autostart")
WORDS = (
    "robot_file",
    "command_type",
    "trainer_url",
    "token_file",
    "ca_file",
    "policy_dir",
    "state_dir",
    "spool_dir",
    "robot",
)
LISTS = ("sensors",)
NUMBERS = ("frozen_s",)
#: arguments that the driver's launch file gets too where they differ from these defaults; its
#: others may well have the names of ours
SHARED = {"namespace": "", "use_sim_time": "false", "log_level": "info"}
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")


def _actions(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Start the node and the driver, once every argument is known."""
    got = {name: LaunchConfiguration(name).perform(context) for name, _, _ in ARGUMENTS}
    got["robot_file"] = robot_path(got["robot_file"], f"{SHARE.perform(context)}/robots")
    parameters = {name: got[name].lower() == "true" for name in SWITCHES}
    parameters |= {name: got[name] for name in WORDS if got[name]}
    parameters |= {name: got[name].split(",") for name in LISTS if got[name]}
    parameters |= {name: float(got[name]) for name in NUMBERS if got[name]}
    node = Node(
        package="wm_ros",
        executable="policy_node",
        name="policy",
        namespace=got["namespace"],
        parameters=[got["params_file"], parameters],
        remappings=remappings(got["camera_topic"], got["remap"]),
        ros_arguments=["--log-level", got["log_level"]],
        respawn=got["use_respawn"].lower() == "true",
        respawn_delay=2.0,
        output="screen",
    )
    if not got["driver_launch"]:
        return [node]
    return [node, *_driver(got, context)]


def _driver(got: dict[str, str], context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Include the driver's launch file in a scope of its own, in which our arguments are unknown.

    Not a GroupAction without forwarding: that would take away the environment (the profile above),
    namespaces that were pushed, and arguments that are the driver's own.
    """
    source = AnyLaunchDescriptionSource(driver_path(got["driver_launch"]))
    source.get_launch_description(context)  # a bad file ends the launch before the node has begun
    shared = {name for name, default in SHARED.items() if got[name].lower() != default}
    outside: dict[str, str] = {}
    inside: dict[str, str] = {}

    def remember(context: LaunchContext) -> None:
        inside.update(context.launch_configurations)

    def keep(context: LaunchContext) -> None:
        """Leave the driver's own arguments to those of its actions that run later."""
        outside.update(context.launch_configurations)
        context.launch_configurations.update({**inside, **outside})

    return [
        PushLaunchConfigurations(),
        *(UnsetLaunchConfiguration(name) for name in got if name not in shared),
        IncludeLaunchDescription(source),
        OpaqueFunction(function=remember),
        PopLaunchConfigurations(),
        OpaqueFunction(function=keep),
    ]


def generate_launch_description() -> LaunchDescription:
    """Describe what ``ros2 launch wm_ros robot_launch.py`` starts."""
    profile = PathJoinSubstitution([*CONFIG, "fastdds.xml"])
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(n, default_value=d, description=t) for n, d, t in ARGUMENTS),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=profile))
                for name in PROFILES
            ),
            OpaqueFunction(function=_actions),
        ]
    )

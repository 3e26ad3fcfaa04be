"""Reads arguments of the launch files; imports neither ROS nor anything that is not in Python."""

from __future__ import annotations

import re
from pathlib import Path

from wm_core.contract.errors import SettingsError

_RULE = re.compile(r"(?P<old>[~/\w{}.-]+):=(?P<new>[~/\w{}.-]+)")
CAMERA = "image_raw"  #: topic of a camera whose topic was not set otherwise


def remappings(camera_topic: str, remap: str) -> list[tuple[str, str]]:
    """List what is remapped, as pairs of the old and the new name.

    Args:
        camera_topic: stands for ``image_raw``; empty: no change.
        remap: rules such as ``cmd_vel:=base/cmd_vel odom:=/odom``, apart by spaces or commas.

    Raises:
        SettingsError: for a rule that is none, or a name with two rules.
    """
    found = [(CAMERA, camera_topic)] if camera_topic else []
    for rule in re.split(r"[\s,;]+", remap.strip()):
        match = _RULE.fullmatch(rule)
        if rule and match is None:
            raise SettingsError(
                "remap: expected rules such as cmd_vel:=base/cmd_vel, apart by spaces, "
                f"got {rule!r}"
            )
        if match is not None:
            found.append((match["old"], match["new"]))
    names = [old for old, _ in found]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SettingsError(f"remap: expected one rule for {', '.join(twice)}, got {found}")
    return found


def driver_path(driver_launch: str) -> str:
    """Locate the launch file of a driver.

    Raises:
        SettingsError: where there is none.
    """
    path = Path(driver_launch).expanduser()
    if path.is_file():
        return str(path)
    raise SettingsError(
        f"driver_launch: no file {str(path.absolute())!r}; give the whole path, such as "
        "$(ros2 pkg prefix --share PACKAGE)/launch/FILE"
    )


def robot_path(robot_file: str, shipped: str | Path) -> str:
    """Locate a robot file: a path, or the bare name of one in the folder ``shipped``.

    Raises:
        SettingsError: where there is none; it lists those that come along.
    """
    if not robot_file:
        return ""
    path = Path(robot_file).expanduser()
    if path.is_file():
        return str(path.resolve())
    known = sorted(Path(shipped).glob("*.yaml"))
    for file in known:
        if robot_file in (file.name, file.stem):
            return str(file)
    names = ", ".join(file.stem for file in known) or "none"
    raise SettingsError(f"robot_file: no file {str(path)!r}; those that come along: {names}")

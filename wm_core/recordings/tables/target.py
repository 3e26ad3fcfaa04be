"""Maps a table onto a robot: what its robot file calls inputs, their sizes, bounds and rate.

A policy that is to go on learning on a robot needs the same inputs there and here; the robot file
says what they are, and each is found among the columns by its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from wm_core.contract.errors import RecordingError, SettingsError, nearest
from wm_core.contract.inputs import ImageSpec, Vector
from wm_core.contract.spec import Spec
from wm_core.recordings.options import OF_TABLES, ReadOptions
from wm_core.recordings.tables.layout import observations, short_name
from wm_core.robot import RobotFile

_SLACK = 0.01  # of the rate
#: options that are of use beside a robot file
_BESIDE_ROBOT = OF_TABLES - {
    "features", "without", "action_low", "action_high", "action_choices", "image_size", "fit",
}  # fmt: skip


class TargetRobot(NamedTuple):
    """Is the robot that a table is read for."""

    name: str
    spec: Spec

    def image(self, name: str, where: object) -> ImageSpec:
        """Describe its camera ``name``; raises ``RecordingError`` where that is none."""
        if name not in self.spec.images:
            raise RecordingError(f"{where}: {name!r} is no camera of the robot file")
        return self.spec.images[name]

    def vector(self, name: str, size: int, where: object) -> Vector:
        """Describe its vector ``name``, which has to have ``size`` numbers."""
        if name not in self.spec.vectors or self.spec.vectors[name].size != size:
            wanted = self.spec.vectors[name].size if name in self.spec.vectors else "no"
            raise RecordingError(
                f"{where}: expected {wanted} numbers of the robot's {name!r}, got {size}"
            )
        return self.spec.vectors[name]


def target_robot(options: ReadOptions) -> TargetRobot | None:
    """Read the robot file of the options; None where there is none.

    Raises:
        RecordingError: for a file that is missing or wrong, and for options that it makes useless.
    """
    if options.robot is None:
        return None
    options.check_taken(_BESIDE_ROBOT, options.robot, "says what inputs and actions are")
    try:
        file = RobotFile.load(options.robot)
        return TargetRobot(file.robot, file.spec())
    except SettingsError as error:
        raise RecordingError(str(error)) from None


def chosen_columns(
    where: object,
    known: Sequence[str],
    usual: Sequence[str],
    options: ReadOptions,
    target: TargetRobot | None,
) -> dict[str, str]:
    """Choose the columns that become observations: those of the robot, else as was said.

    Returns:
        The name of the observation for each column.

    Raises:
        RecordingError: for an input of the robot that no column is called like.
    """
    if target is None:
        return observations(where, known, usual, options)
    unknown = [name for name in options.names if name not in known]
    if unknown:
        raise RecordingError(f"{where}: {nearest(unknown[0], known, what='column to rename')}")
    called = {options.names.get(column, short_name(column)): column for column in known}
    found = {}
    for name in target.spec.inputs:
        if name not in called:
            raise RecordingError(
                f"{where}: no column for the robot's input {name!r}; "
                f"{nearest(name, called, what='observation')}; say which it is with --rename "
                f"COLUMN={name}"
            )
        found[called[name]] = name
    return found


def check_target_rate(where: object, fps: float | None, target: TargetRobot) -> None:
    """Raise ``RecordingError`` where a table has other steps per second than its robot."""
    if fps is not None and abs(fps * target.spec.period_s - 1.0) > _SLACK:
        raise RecordingError(
            f"{where}: {fps:g} rows per second, but the robot file decides "
            f"{1.0 / target.spec.period_s:g} times; rows are not resampled: set rate_hz: {fps:g}"
        )

"""Says how a recording is to be read; each format takes what concerns it and refuses the rest."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from pydantic import Field

from wm_core.contract.errors import RecordingError
from wm_core.recordings.table_options import TableOptions

_FLAGS = {"from_s": "--from", "until_s": "--until", "rewards": "--no-rewards"}


class ReadOptions(TableOptions):
    """Holds what whoever imports a recording may say about it."""

    robot: Path | None = Field(
        None, description="Robot file (YAML) that says which topics are observations and actions"
    )
    name: str = Field(
        "", description="Robot's name under which steps are stored; empty: the recording's"
    )
    task: str = Field("", description="What was done, recorded with every chunk of steps")
    from_s: float | None = Field(
        None, ge=0, description="Leave out what comes before this many seconds from the begin"
    )
    namespace: str = Field(
        "", description="Bags: namespace under which the robot's nodes ran, such as /robot1"
    )
    rewards: bool = Field(
        True, description="Bags: read rewards and conditions as the robot file says them"
    )
    log_times: bool = Field(
        False, description="Bags: take the time at which a message was written, not its stamp"
    )
    hold_s: float = Field(
        0.5,
        gt=0,
        description="Bags: seconds that a velocity or effort counts where no other follows",
    )
    until_s: float | None = Field(
        None, gt=0, description="Leave out what comes after this many seconds from the begin"
    )

    def check_taken(self, taken: Collection[str], where: object, why: str) -> None:
        """Refuse options that were given and would do nothing.

        Args:
            taken: names of those that are of use.
            where: the recording, for the message.
            why: the others are of none.

        Raises:
            RecordingError: naming the options as on the command line.
        """
        given = [name for name in self.said() if name in ReadOptions.model_fields]
        flags = [
            _FLAGS.get(name, f"--{name.replace('_', '-')}") for name in given if name not in taken
        ]
        if flags:
            raise RecordingError(f"{where} {why}: leave out {' and '.join(flags)}")


#: names of the options that tables take
OF_TABLES = frozenset(ReadOptions.model_fields) - {"namespace", "rewards", "log_times", "hold_s"}

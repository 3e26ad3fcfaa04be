"""Says how a recording is to be read; each format takes what concerns it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wm_core.recordings.table_options import TableOptions


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

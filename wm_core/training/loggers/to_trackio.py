"""Writes the numbers of a run to Trackio, a tracker whose data lie on this machine."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import trackio

from wm_core.training.gif import gif
from wm_core.training.loggers.base import RunAbout


class TrackioLog:
    """Writes one run of the project that ``TRACKIO_PROJECT`` names, or of ``wm_ros``.

    Args:
        about: the run.
    """

    def __init__(self, about: RunAbout) -> None:
        self._axis = about.axis
        self._run: Any = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "wm_ros"),
            name=f"{about.run.name}-{about.run_id[:8]}" if about.run_id else about.run.name,
            resume="allow",
            config=dict(about.settings or {}),
        )

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        named = {f"{kind}/{name}": value for name, value in numbers.items()}
        place = updates if self._axis == "updates" else agent_steps
        self._run.log(named | {"updates": updates, "agent_steps": agent_steps}, step=place)

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        place = updates if self._axis == "updates" else agent_steps
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.gif"
            path.write_bytes(gif(frames, fps=fps))
            self._run.log({name: trackio.Video(str(path), format="gif")}, step=place)

    def close(self) -> None:
        self._run.finish()


make = TrackioLog

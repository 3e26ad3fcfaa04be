"""Sends the numbers of a run to Weights & Biases; ``WANDB_MODE=offline`` keeps them here."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import wandb

from wm_core.training.gif import gif
from wm_core.training.loggers.base import RunAbout


class WandbLog:
    """Writes one run; project and entity are those of the environment (``WANDB_PROJECT``).

    Args:
        about: the run; its id makes a resumed one go on in the same place.
    """

    def __init__(self, about: RunAbout) -> None:
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "wm_ros"),
            name=about.run.name,
            id=about.run_id or None,
            resume="allow",
            dir=str(about.run),
            config=dict(about.settings or {}),
        )
        self._run.define_metric("*", step_metric=about.axis)

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        named = {f"{kind}/{name}": value for name, value in numbers.items()}
        self._run.log(named | {"updates": updates, "agent_steps": agent_steps})

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}.gif"
            path.write_bytes(gif(frames, fps=fps))
            video = wandb.Video(str(path), format="gif")
            self._run.log({name: video, "updates": updates, "agent_steps": agent_steps})

    def close(self) -> None:
        self._run.finish()


make = WandbLog

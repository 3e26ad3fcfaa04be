"""Writes the numbers of a run to ``RUN/tb``, for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from wm_core.training.gif import gif
from wm_core.training.loggers.base import RunAbout


class TensorBoardLog:
    """Writes event files; a resumed run hides what it writes again.

    Args:
        about: the run.
    """

    def __init__(self, about: RunAbout) -> None:
        # Here, not above: importing TensorBoard takes half a second that `wm evaluate` saves.
        from torch.utils.tensorboard import SummaryWriter

        folder, self._axis = str(about.run / "tb"), about.axis
        self._board = SummaryWriter(folder, purge_step=about.resume_at, flush_secs=20)

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        place = updates if self._axis == "updates" else agent_steps
        for name, value in numbers.items():
            self._board.add_scalar(f"{kind}/{name}", value, place)

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        height, width = frames.shape[1:3]
        data = gif(frames, fps=fps)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        summary = Summary(value=[Summary.Value(tag=name, image=image)])
        place = updates if self._axis == "updates" else agent_steps
        self._board._get_file_writer().add_summary(summary, place)

    def close(self) -> None:
        self._board.close()


make = TensorBoardLog

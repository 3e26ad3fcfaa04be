"""Writes the numbers of a run to ``RUN/tb``, for TensorBoard.

The event file is written here, without the threads of TensorBoard's own writers: a disk that is
full costs this logger in one line, and a folder that is moved keeps the file that is open.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from uuid import uuid4

import numpy as np
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from wm_core.training.gif import gif
from wm_core.training.loggers.base import RunAbout

_FORMAT = "brain.Event:2"  #: of event files


class TensorBoardLog:
    """Writes event files; a resumed run hides what it writes again.

    Args:
        about: the run.
    """

    def __init__(self, about: RunAbout) -> None:
        folder, self._axis = about.run / "tb", about.axis
        folder.mkdir(parents=True, exist_ok=True)
        name = f"{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{uuid4().hex[:8]}"
        self._file = (folder / f"events.out.tfevents.{name}").open("xb")
        self._records = RecordWriter(self._file)
        try:
            self._begin(about.resume_at)
        except OSError:  # the disk is full
            with contextlib.suppress(OSError):
                self._file.close()
            raise

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        values = [
            Summary.Value(tag=f"{kind}/{name}", simple_value=value)
            for name, value in numbers.items()
        ]
        self._add(Summary(value=values), updates, agent_steps)

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        height, width = frames.shape[1:3]
        data = gif(frames, fps=fps)
        image = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=data)
        self._add(Summary(value=[Summary.Value(tag=name, image=image)]), updates, agent_steps)

    def close(self) -> None:
        self._file.close()

    def _begin(self, resume_at: int | None) -> None:
        self._write(Event(file_version=_FORMAT))
        if resume_at is not None:  # of earlier files, hide what lies beyond
            session = SessionLog(status=SessionLog.SessionStatus.START)
            self._write(Event(step=resume_at, session_log=session))
        self._file.flush()

    def _add(self, summary: Summary, updates: int, agent_steps: int) -> None:
        place = updates if self._axis == "updates" else agent_steps
        self._write(Event(step=place, summary=summary))
        self._file.flush()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._records.write(event.SerializeToString())


make = TensorBoardLog

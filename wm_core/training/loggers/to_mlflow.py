"""Writes the numbers of a run to MLflow, wherever ``MLFLOW_TRACKING_URI`` says."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from wm_core.training.gif import gif
from wm_core.training.loggers.base import RunAbout

_TAG = "wm_run_id"
_MAX_PARAMS, _MAX_TEXT = 100, 500  #: that a server takes in one call, and in one value


class MlflowLog:
    """Writes one run of the experiment that ``MLFLOW_EXPERIMENT_NAME`` names, or of ``wm_ros``.

    Args:
        about: the run; its id makes a resumed one go on in the same place.
    """

    def __init__(self, about: RunAbout) -> None:
        self._client, self._axis = MlflowClient(), about.axis
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "wm_ros")
        found = self._client.get_experiment_by_name(name)
        experiment = self._client.create_experiment(name) if found is None else found.experiment_id
        before = self._client.search_runs([experiment], f"tags.{_TAG} = '{about.run_id}'")
        if before and about.run_id:
            self._id = before[0].info.run_id
            return
        tags = {_TAG: about.run_id, "mlflow.runName": about.run.name}
        self._id = self._client.create_run(experiment, tags=tags).info.run_id
        values = [Param(key, str(value)[:_MAX_TEXT]) for key, value in _flat(about.settings or {})]
        for begin in range(0, len(values), _MAX_PARAMS):
            self._client.log_batch(self._id, params=values[begin : begin + _MAX_PARAMS])

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        now_ms, place = int(time.time() * 1000), updates
        if self._axis == "agent_steps":
            place = agent_steps
        metrics = [
            Metric(f"{kind}/{name}", float(value), now_ms, place)
            for name, value in numbers.items()
            if math.isfinite(value)  # some of its stores refuse the others
        ]
        self._client.log_batch(self._id, metrics=metrics)

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"{name}-{updates:09d}.gif"
            path.write_bytes(gif(frames, fps=fps))
            self._client.log_artifact(self._id, str(path), "videos")

    def close(self) -> None:
        self._client.set_terminated(self._id)


def _flat(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of nested ``settings``."""
    found: list[tuple[str, Any]] = []
    for name, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


make = MlflowLog

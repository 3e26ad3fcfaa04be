"""Loggers by name: the interface that they have, the ones there are, and all of a run's as one.

A logger is a callable that takes ``RunAbout`` and returns a ``Logger``.  Another package adds one
by an entry point of the group ``wm_core.loggers``.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.extras import install_extras

log = logging.getLogger(__name__)

GROUP = "wm_core.loggers"
Axis = Literal["updates", "agent_steps"]
BUILT_IN = {
    name: f"wm_core.training.loggers.to_{name}:make"
    for name in ("tensorboard", "wandb", "mlflow", "trackio")
}


@dataclass(frozen=True)
class RunAbout:
    """What a logger is told of the run whose numbers it gets."""

    run: Path  #: the run folder; a logger keeps its own files in a folder of it
    run_id: str = ""  #: the same in every process of the run
    settings: Mapping[str, Any] | None = None  #: of the whole run, plain values by name
    axis: Axis = "updates"  #: what the horizontal axis shows
    #: the place on that axis from which a resumed run writes again; None for a new run
    resume_at: int | None = None


class Logger(Protocol):
    """Takes in the numbers and videos of a run; what it raises only ends itself."""

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        """Take in ``numbers`` of one moment.

        Args:
            kind: what they are of, such as train, episode, eval or progress.
            numbers: by name; they may be NaN.
            updates: gradient updates so far.
            agent_steps: collected so far.
        """
        ...

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        """Take in a video of ``frames`` (N, H, W, 3) uint8, shown at ``fps`` a second."""
        ...

    def close(self) -> None:
        """Write what is not written yet; a second call does nothing."""
        ...


MakeLogger = Callable[[RunAbout], Logger]


def find_loggers(names: Iterable[str]) -> dict[str, MakeLogger]:
    """Import the loggers of these names.

    Raises:
        SettingsError: for a name that there is not, or whose package is not installed.
    """
    return {name: _find(name) for name in names}


def _find(name: str) -> MakeLogger:
    added = {entry.name: entry for entry in importlib.metadata.entry_points(group=GROUP)}
    here = {key: importlib.metadata.EntryPoint(key, at, GROUP) for key, at in BUILT_IN.items()}
    entry = here.get(name) or added.get(name)
    if entry is None:
        raise SettingsError(f"--loggers: {nearest(name, {*here, *added}, what='logger')}")
    try:
        make: MakeLogger = entry.load()
    except (ImportError, AttributeError) as error:
        cure = install_extras(name) if name in here else "install the package that adds it"
        raise SettingsError(
            f"--loggers {name}: cannot be imported ({error}); {cure}, or leave it out"
        ) from error
    return make


class Loggers:
    """All loggers of a run as one; one that raises is dropped with a warning.

    Args:
        makers: as ``find_loggers`` gives them.
        about: the run.
    """

    def __init__(self, makers: Mapping[str, MakeLogger], about: RunAbout) -> None:
        self._open: dict[str, Logger] = {}
        for name, make in makers.items():
            try:
                self._open[name] = make(about)
            except Exception as error:  # whatever it is, the run goes on
                _warn(name, error)

    def write(
        self, kind: str, numbers: Mapping[str, float], *, updates: int, agent_steps: int
    ) -> None:
        """Give ``numbers`` to every logger; see ``Logger.write``."""
        self._each(lambda it: it.write(kind, numbers, updates=updates, agent_steps=agent_steps))

    def video(
        self, name: str, frames: np.ndarray, *, updates: int, agent_steps: int, fps: float
    ) -> None:
        """Give a video of ``frames`` (N, H, W, 3) uint8 to every logger."""
        self._each(
            lambda it: it.video(name, frames, updates=updates, agent_steps=agent_steps, fps=fps)
        )

    def close(self) -> None:
        """Close every logger; a second call does nothing."""
        self._each(lambda it: it.close())
        self._open.clear()

    @property
    def names(self) -> Sequence[str]:
        """Those that are still there."""
        return list(self._open)

    def _each(self, what: Callable[[Logger], None]) -> None:
        for name, logger in list(self._open.items()):
            try:
                what(logger)
            except Exception as error:  # whatever it is, the run goes on
                del self._open[name]
                _warn(name, error)
                with contextlib.suppress(Exception):  # its files; it may have failed in this
                    logger.close()


def _warn(name: str, error: Exception) -> None:
    reason = str(error).strip().splitlines()
    log.warning(
        "logger %s is dropped, the run goes on without it: %s: %s",
        name,
        type(error).__name__,
        reason[0] if reason else "",
    )

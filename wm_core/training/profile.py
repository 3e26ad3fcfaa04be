"""Traces an update of a training into a file that a browser shows (``wm train --profile``)."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.profiler import ProfilerActivity, profile, record_function

from wm_core.training.learner import Learner

TRACED = 5  #: the update of a process that is traced; the first few are slower than all others
NAME = "profile.json.gz"  #: of the trace in the run folder
PARTS = {
    "draw": "draw windows",
    "world": "losses of the world model",
    "behavior": "imagination and losses of the behaviour",
    "step": "gradients and new weights",
}  #: label in the trace -> what it is


@contextlib.contextmanager
def traced(learner: Learner, run: Path, tell: Callable[[str], None]) -> Iterator[None]:
    """Trace the fifth update that ``learner`` makes inside, and say where the trace is.

    Args:
        learner: its ``update`` is replaced until the trace is written.
        run: folder that the trace is written to.
        tell: called with one line at a time: the file, and the time of each part of the update.
    """
    update, made = learner.update, 0

    def counted() -> dict[str, Tensor]:
        nonlocal made
        made += 1
        if made < TRACED:
            return update()
        del learner.__dict__["update"]
        metrics, trace = _trace(learner)
        _write(trace, run / NAME, tell)
        return metrics

    learner.__dict__["update"] = counted
    try:
        yield
    finally:
        if learner.__dict__.pop("update", None):
            tell(f"profile: no trace, expected at least {TRACED} updates, got {made}")


def _trace(learner: Learner) -> tuple[dict[str, Tensor], profile]:
    activities = [ProfilerActivity.CPU]
    if learner.agent.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with _labelled(learner), profile(activities=activities) as trace:
        metrics = learner.update()
    return metrics, trace


def _write(trace: profile, path: Path, tell: Callable[[str], None]) -> None:
    try:
        trace.export_chrome_trace(str(path))
    except (OSError, RuntimeError) as error:
        tell(f"profile: {path} cannot be written: {error}")
        return
    tell(f"profile: {path} holds one update; open it in https://ui.perfetto.dev")
    times = {event.key: event.cpu_time_total / 1e3 for event in trace.key_averages()}
    for label, part in PARTS.items():
        if label in times:
            tell(f"profile: {times[label]:8.1f} ms {part}")


@contextlib.contextmanager
def _labelled(learner: Learner) -> Iterator[None]:
    """Name the parts of an update in a trace."""
    agent = learner.agent
    places: tuple[tuple[str, Any, str], ...] = (
        ("draw", learner.sampler, "sample"),
        ("world", agent.world, "loss"),
        ("behavior", agent.behavior, "loss"),
        ("step", agent.optimizers, "step"),
    )
    for label, owner, name in places:
        owner.__dict__[name] = _recorded(label, getattr(owner, name))
    try:
        yield
    finally:
        for _, owner, name in places:
            del owner.__dict__[name]


def _recorded(label: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        with record_function(label):
            return function(*args, **keywords)

    return call

"""Show the progress of a training: a live bar on a terminal, lines in a log elsewhere."""

from __future__ import annotations

import sys
import time

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn
from rich.text import Text

from wm_core.training.status import Status

LINE_EVERY_S = 10.0  #: between two lines where standard error is no terminal


class ProgressView:
    """Shows every ``Status`` that it is given; a context manager.

    Args:
        quiet: show nothing.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True)
        self._live = self._console.is_terminal and not quiet
        self._quiet = quiet
        self._line_s = -LINE_EVERY_S
        self._last: Status | None = None
        self._written: Status | None = None  # the last one that became a line
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            _Numbers(),
            console=self._console,
            refresh_per_second=4,
        )
        self._task = self._bar.add_task("starting", total=None, status=None)

    def __enter__(self) -> ProgressView:
        if self._live:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._bar.stop()
        elif self._last is not None and self._last is not self._written and not self._quiet:
            self._line(self._last)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if not self._quiet:
            self._console.print(text, highlight=False, soft_wrap=True)

    def show(self, status: Status) -> None:
        """Show a new status."""
        self._last = status
        if self._live:
            done, total = _share(status)
            self._bar.update(
                self._task, description=status.phase, completed=done, total=total, status=status
            )
        elif not self._quiet and time.monotonic() - self._line_s >= LINE_EVERY_S:
            self._line(status)

    def _line(self, status: Status) -> None:
        self._line_s, self._written = time.monotonic(), status
        sys.stderr.write(f"{status.phase}: {_numbers(status)}\n")


def _share(status: Status) -> tuple[float, float | None]:
    """How much is done of how much, in the unit of the goal that ends the training."""
    if status.cpu_s_goal:
        return status.cpu_s, status.cpu_s_goal
    if status.updates_goal:
        return status.updates, status.updates_goal
    return status.agent_steps, status.agent_steps_goal


def _numbers(status: Status) -> str:
    timed = bool(status.cpu_s_goal)
    goal = f"/{status.updates_goal}" if status.updates_goal and not timed else ""
    parts = [
        f"update {status.updates}{goal} {status.updates_per_s:.2f}/s",
        f"step {status.agent_steps} {status.agent_steps_per_s:.0f}/s",
    ]
    if status.cpu_s_goal:
        parts.append(f"{_clock(status.cpu_s)}/{_clock(status.cpu_s_goal)} of CPU")
    elif status.updates_goal and status.updates_per_s > 0:
        left_s = (status.updates_goal - status.updates) / status.updates_per_s
        parts.append(f"{_clock(left_s)} left")
    if status.last_return is not None:
        parts.append(f"return {status.last_return:.1f}")
    evaluated = status.evaluation.get("mean")
    if isinstance(evaluated, float):
        parts.append(f"evaluated {evaluated:.3g}")
    if status.published_version >= 0:
        parts.append(f"policy {status.published_version}")
    if status.invalid_steps:
        invalid = ", ".join(f"{n} {reason}" for reason, n in status.invalid_steps.items())
        parts.append(f"invalid {invalid}")
    if status.env_restarts:
        parts.append(f"restarts {status.env_restarts}")
    if status.collectors.get("waits", "neither") != "neither":
        side = status.collectors["waits"]
        share = status.collectors["learner_waits" if side == "learner" else "collectors_wait"]
        parts.append(f"{side} {'waits' if side == 'learner' else 'wait'} {100 * share:.0f} %")
    if status.waiting_for:
        parts.append(f"waiting for {status.waiting_for}")
    return " · ".join(parts)


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(max(0.0, seconds)), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


class _Numbers(ProgressColumn):
    def render(self, task: Task) -> Text:
        status = task.fields.get("status")
        text = "" if status is None else _numbers(status)
        return Text(text, no_wrap=True, overflow="ellipsis")

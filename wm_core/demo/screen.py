"""Draw the live screen: one table about the robot and its learner."""

from __future__ import annotations

from dataclasses import dataclass

from rich.table import Table


@dataclass(frozen=True)
class Snapshot:
    """Figures of the screen at one time; ``None`` where a figure is not known yet."""

    elapsed_s: float
    total_s: float
    episodes: int
    recent_return: float | None  #: mean of the last ten episodes
    random_return: float
    best_return: float
    steps: int
    chunks_sealed: int
    chunks_acked: int
    version_on_robot: int | None
    version_published: int | None
    updates: int
    updates_per_s: float | None
    tick_p99_ms: float | None
    missed_ticks: int


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def line(now: Snapshot) -> str:
    """Write the figures as one line of plain text, for a log."""
    return (
        f"[{now.elapsed_s / 60:5.1f}/{now.total_s / 60:.0f} min] "
        f"return {_number(now.recent_return)} ({now.episodes} episodes), "
        f"{now.steps} steps, chunks {now.chunks_acked}/{now.chunks_sealed} acknowledged, "
        f"policy v{_number(now.version_on_robot, 'd')}, {now.updates} updates "
        f"({_number(now.updates_per_s)}/s), tick p99 {_number(now.tick_p99_ms)} ms"
    )


def table(now: Snapshot) -> Table:
    """Write the figures as a table for a terminal."""
    left_s = max(0.0, now.total_s - now.elapsed_s)
    grid = Table("what", "now", "compare", min_width=64)
    grid.title = f"wm demo · the robot acts and learns · {left_s / 60:.1f} minutes left"
    grid.columns[1].justify, grid.columns[2].style = "right", "dim"
    levels = f"random {now.random_return:.1f}, best {now.best_return:.1f}"
    grid.add_row("return, mean of the last ten", _number(now.recent_return), levels)
    grid.add_row("episodes finished", str(now.episodes))
    grid.add_row("steps streamed", f"{now.steps:,}")
    grid.add_row("chunks acknowledged", str(now.chunks_acked), f"of {now.chunks_sealed} sealed")
    published = f"published: {_number(now.version_published, 'd')}"
    grid.add_row("policy version on the robot", _number(now.version_on_robot, "d"), published)
    grid.add_row("learner updates", f"{now.updates:,}", f"{_number(now.updates_per_s)} a second")
    grid.add_row("tick p99", f"{_number(now.tick_p99_ms)} ms", f"missed {now.missed_ticks}")
    return grid

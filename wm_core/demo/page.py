"""Write the report as one HTML page that needs no network."""

from __future__ import annotations

import base64
import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_core.page.drawing import STYLE, Chart


@dataclass(frozen=True)
class Episode:
    """One finished episode of the robot."""

    minute: float  #: since the robot started, at the episode's end
    total: float  #: sum of rewards
    version: int  #: of the policy at its end; -1 for random actions


@dataclass(frozen=True)
class ReportData:
    """What the page shows in addition to the figures of the report."""

    episodes: Sequence[Episode]
    swaps: Sequence[tuple[float, int]]  #: (minute, version)
    latency_ms: Sequence[tuple[float, int]]  #: (upper edge of the bin, ticks)
    pictures: Sequence[Path] = ()  #: GIF or PNG
    next_commands: Sequence[str] = ()


def learning_curve(data: ReportData, report: dict[str, Any]) -> str:
    """Draw return against minutes as <svg>, with the swaps and the random and best levels."""
    x_label = "minutes since the robot started (thin lines: a new policy)"
    chart = Chart(x_label, "return of the episode", width=900, height=330)
    minutes = [e.minute for e in data.episodes]
    totals = [e.total for e in data.episodes]
    chart.dots(minutes, totals, "one episode")
    if len(totals) >= 10:
        means = [sum(totals[i - 10 : i]) / 10 for i in range(10, len(totals) + 1)]
        chart.line(minutes[9:], means, "mean of 10")
    for minute, version in data.swaps:
        chart.mark(minute, f"version {version}")
    for key, label in (("random_return", "random"), ("best_return", "best")):
        chart.level(report[key], label)
    return chart.svg()


def latency_histogram(data: ReportData, report: dict[str, Any]) -> str:
    """Draw as <svg> how long ticks took, from their start to the command."""
    x_label = "milliseconds from a tick's start to its command (thin line: p99)"
    chart = Chart(x_label, "ticks", width=900, height=250, log_counts=True)
    edges = [0.0, *(edge for edge, _ in data.latency_ms)]
    chart.bars(edges, [count for _, count in data.latency_ms])
    p99 = report.get("tick_p99_ms")
    if p99 is not None:
        chart.mark(p99, f"p99: {p99:.3g} ms")
    return chart.svg()


def _picture(path: Path) -> str:
    kind = path.suffix.lstrip(".")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{data}">'


def _table(report: dict[str, Any]) -> str:
    rows = ""
    for key, value in report.items():
        shown = html.escape(f"{value:,.3f}" if isinstance(value, float) else str(value))
        rows += f"<tr><th>{html.escape(key)}</th><td>{shown}</td></tr>"
    return f'<table class="facts">{rows}</table>'


def verdict(report: dict[str, Any]) -> str:
    """Say in one sentence whether the robot learnt, by the bounds in the report."""
    final, low = report["final_return"], report["final_return_low"]
    random, high = report["random_return"], report["random_return_high"]
    figures = (
        f"final return {final:.1f} (at least {low:.1f} with 95 % confidence), "
        f"random {random:.1f} (at most {high:.1f}), best {report['best_return']:.1f}"
    )
    if low <= high:
        return f"Not shown to have learnt in this time: {figures}."
    share = (final - random) / (report["best_return"] - random)
    return f"It learnt: {figures}; that is {share:.0%} of the way from random to best."


def write(path: Path, report: dict[str, Any], data: ReportData) -> None:
    """Write the page to ``path``, with all pictures inside."""
    pictures = "".join(f"<figure>{_picture(p)}</figure>" for p in data.pictures)
    commands = html.escape("\n".join(data.next_commands))
    path.write_text(
        f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>wm_ros demo: {html.escape(str(report["task"]))}</title>
<style>{STYLE.read_text()}</style></head>
<body class="report">
<h1>A robot learns {html.escape(str(report["task"]))} from its camera</h1>
<p class="muted">{report["minutes"]:.1f} minutes, commit {html.escape(str(report["commit"]))}</p>
<p class="verdict">{html.escape(verdict(report))}</p>
<h2>Learning curve</h2><figure>{learning_curve(data, report)}</figure>
<h2>Imagined against real</h2>
<p class="muted">After a few real frames the world model goes on alone, given only the actions.</p>
{pictures or "<p>There was no checkpoint to imagine with.</p>"}
<h2>How long a tick takes</h2><figure>{latency_histogram(data, report)}</figure>
<h2>Figures</h2>{_table(report)}
<h2>Go on from here</h2><pre>{commands}</pre>
</body></html>
"""
    )

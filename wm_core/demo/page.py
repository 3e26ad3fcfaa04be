"""Write the report as one HTML page that needs no network."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_INK, _ACCENT, _MUTED = "#1f2933", "#c2410c", "#7b8794"

_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2933; max-width: 60rem; margin: 2rem auto;
       padding: 0 1rem; background: #fbfaf8; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.verdict { font-size: 1.1rem; } .muted { color: #616e7c; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td { padding: .25rem .6rem; border-bottom: 1px solid #e4e7eb; } td.number { text-align: right; }
figure { margin: 0; } figure svg { width: 100%; height: auto; }
img { image-rendering: pixelated; width: 100%; } pre { background: #f0eeea; padding: .8rem; }
"""


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


def _svg(figure: Any) -> str:
    """Draw the figure as an inline <svg> element."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(colors=_INK)
    return figure, axes


def learning_curve(data: ReportData, report: dict[str, Any]) -> str:
    """Draw return against minutes as <svg>, with the swaps and the random and best levels."""
    figure, axes = _axes(9, 3.4)
    minutes = [e.minute for e in data.episodes]
    totals = [e.total for e in data.episodes]
    axes.plot(minutes, totals, "o", ms=3.5, color=_MUTED, alpha=0.6, label="one episode")
    if len(totals) >= 10:
        means = [sum(totals[i - 10 : i]) / 10 for i in range(10, len(totals) + 1)]
        axes.plot(minutes[9:], means, color=_ACCENT, lw=2, label="mean of 10")
    for minute, _ in data.swaps:
        axes.axvline(minute, color=_MUTED, lw=0.5, alpha=0.4)
    for key, label in (("random_return", "random"), ("best_return", "best")):
        axes.axhline(report[key], color=_INK, lw=1, ls=":")
        axes.annotate(label, (1.0, report[key]), xycoords=("axes fraction", "data"))
    axes.set_xlabel("minutes since the robot started (thin lines: a new policy)")
    axes.set_ylabel("return of the episode")
    axes.legend(frameon=False, loc="upper left")
    return _svg(figure)


def latency_histogram(data: ReportData, report: dict[str, Any]) -> str:
    """Draw as <svg> how long ticks took, from their start to the command."""
    figure, axes = _axes(9, 2.6)
    edges = [edge for edge, _ in data.latency_ms]
    counts = [count for _, count in data.latency_ms]
    if edges:
        axes.stairs(counts, [0.0, *edges], fill=True, color=_ACCENT, alpha=0.8)
    axes.set_yscale("symlog", linthresh=1)
    shown = [edge for edge, count in data.latency_ms if count]
    axes.set_xlim(0, max(shown[-1] * 1.05, 5.0) if shown else 5.0)
    if report.get("tick_p99_ms") is not None:
        axes.axvline(report["tick_p99_ms"], color=_INK, lw=1, ls=":")
    axes.set_xlabel("milliseconds from a tick's start to its command (dotted: p99)")
    axes.set_ylabel("ticks")
    return _svg(figure)


def _picture(path: Path) -> str:
    kind = path.suffix.lstrip(".")
    data = base64.b64encode(path.read_bytes()).decode()
    return f'<img alt="{html.escape(path.stem)}" src="data:image/{kind};base64,{data}">'


def _table(report: dict[str, Any]) -> str:
    rows = ""
    for key, value in report.items():
        shown = html.escape(f"{value:,.3f}" if isinstance(value, float) else str(value))
        rows += f'<tr><td>{html.escape(key)}</td><td class="number">{shown}</td></tr>'
    return f"<table>{rows}</table>"


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
<title>wm_ros demo: {html.escape(str(report["task"]))}</title><style>{_STYLE}</style></head><body>
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

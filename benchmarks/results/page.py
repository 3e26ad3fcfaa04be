"""The sections of docs/results.md that the rows make, with their plots: every preset on a task."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results import grid_page
from benchmarks.results.cells import each, way_to_expert
from benchmarks.results.plot import figure_of, save
from wm_core.contract.files import write_durably

Row = Mapping[str, Any]

BEGIN, END = "<!-- results: begin, made by `make results` -->", "<!-- results: end -->"
YARDSTICKS = "yardsticks.json"
_OTHER = "demonstrations"  #: a folder of another comparison, which has yardsticks too
HEAD = (
    "| preset | backbone | latent | return, 95 % bounds | of the way to the expert | beats random "
    "| updates | agent steps | s/update | step p50 / p99 | file |"
)


def write_page(page: Path, out: Path) -> None:
    """Put the section of every task with rows in ``out`` between the two markers of ``page``.

    Args:
        page: a Markdown file that holds both markers.
        out: a folder for each task, of rows and ``yardsticks.json``; plots are written there.

    Raises:
        SystemExit: where a marker is missing.
    """
    text = page.read_text()
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise SystemExit(f"{page}: expected one line {BEGIN!r} and one {END!r}")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    folders = [p.parent for p in sorted(out.glob(f"*/{YARDSTICKS}")) if p.parent.name != _OTHER]
    sections = [section(folder, page.parent) for folder in folders]
    grid = out / grid_page.FOLDER
    if grid.exists():
        sections.append(grid_page.section(grid, page.parent))
    body = "\n".join(sections) or "No row has been made yet.\n"
    write_durably(page, f"{before}{BEGIN}\n\n{body}\n{END}{after}".encode())


def section(folder: Path, beside: Path) -> str:
    """The text on the task whose rows lie in ``folder``, for a page in the folder ``beside``."""
    rows, sticks = read(folder)
    plot = folder / "curves.png"
    good = [row for row in rows if row["failed"] is None]
    if good:
        draw(good, sticks, plot)
    task = sticks["task"]
    parts = [
        f"## Every preset on `{task}`, the same CPU time",
        conditions(rows),
        verdict(rows, sticks),
    ]
    parts.append(table(rows, sticks, beside))
    if good:
        what = f"Training returns on {task} over CPU minutes"
        parts.append(f"![{what}]({os.path.relpath(plot, beside)})")
    parts += [commands(rows, task)]
    return "\n\n".join(parts) + "\n"


def read(folder: Path) -> tuple[list[Row], Row]:
    """The rows in ``folder``, best first, and its yardsticks."""
    sticks = json.loads((folder / YARDSTICKS).read_text())
    paths = [p for p in sorted(folder.glob("*.json")) if p.name != YARDSTICKS]
    rows = [json.loads(p.read_text()) for p in paths]
    return sorted(rows, key=lambda row: -mean_of(row)), sticks


def mean_of(row: Row) -> float:
    """Mean return; below everything for a run that failed."""
    return float("-inf") if row["failed"] is not None else float(row["trained"]["mean"])


def beats_random(row: Row, sticks: Row) -> bool:
    """Whether the lower bound lies above random's upper one."""
    return row["failed"] is None and row["trained"]["low"] > sticks["random"]["high"]


def name_of(row: Row, rows: Sequence[Row]) -> str:
    """The preset, with its seed where there are several."""
    several = len({r["seed"] for r in rows}) > 1
    return f"{row['preset']}, seed {row['seed']}" if several else str(row["preset"])


# ------------------------------------------------------------------------------------ text


def conditions(rows: Sequence[Row]) -> str:
    """Under what circumstances the rows were made, in a paragraph."""
    if not rows:
        return "No row yet."
    good = [row for row in rows if row["failed"] is None]
    loads = [value for row in rows for value in row["load"]]
    versions = rows[0]["versions"]
    packages = [k for k in ("python", "torch", "onnxruntime") if k in versions]
    return (
        f"{each(rows, 'minutes')} minutes of CPU time each, collection included, on one thread; "
        f"size {each(rows, 'size')}. The exported file was evaluated with its mean action over "
        f"{each([row['trained'] for row in good], 'episodes')} episodes that no training saw; "
        "bounds are Student's t, two-sided 95 %, of the mean over episodes of one training. A "
        "step of the exported file was timed on one thread, paced at "
        f"{each([row['latency'] for row in good], 'rate_hz')} Hz. {each(rows, 'cpu')}, "
        f"{each(rows, 'cores')} cores, {each(rows, 'jobs')} side by side, load "
        f"{min(loads):.1f} .. {max(loads):.1f}; "
        f"{', '.join(f'{k} {versions[k]}' for k in packages)}; commit {each(rows, 'commit')}; "
        f"{each(rows, 'date')}."
    )


def verdict(rows: Sequence[Row], sticks: Row) -> str:
    """Which presets beat random by the bounds, and by name those that do not."""
    good = [row for row in rows if beats_random(row, sticks)]
    bad = [row for row in rows if row["failed"] is None and row not in good]
    lines = [f"{len(good)} of {len(rows)} beat random by their bounds."]
    if bad:
        names = ", ".join(f"`{name_of(row, rows)}`" for row in bad)
        lines.append(f"**Not shown to beat random: {names}.**")
    lines += [
        f"**`{name_of(row, rows)}` failed**: {row['failed']}."
        for row in rows
        if row["failed"] is not None
    ]
    return " ".join(lines)


def table(rows: Sequence[Row], sticks: Row, beside: Path) -> str:
    """Rows and yardsticks, best first, as Markdown."""
    lines = [(mean_of(row), _line(row, rows, sticks, beside)) for row in rows]
    for name in ("random", "expert"):
        stick = sticks[name]
        if stick is not None:
            cells = [f"*{name}*", "", "", _bounds(stick), way_to_expert(stick["mean"], sticks)]
            lines.append((stick["mean"], _cells([*cells, *[""] * 6])))
    body = [line for _, line in sorted(lines, key=lambda pair: -pair[0])]
    rule = "|---|---|---|---|---|---|---|---|---|---|---|"
    return "\n".join([HEAD, rule, *body])


def _line(row: Row, rows: Sequence[Row], sticks: Row, beside: Path) -> str:
    name, parts = f"`{name_of(row, rows)}`", row["parts"]
    if (beside / "algorithms" / f"{row['preset']}.md").exists():
        name = f"[{name}](algorithms/{row['preset']}.md)"
    cells = [name, parts.get("backbone", ""), parts.get("latent", "")]
    if row["failed"] is not None:
        cells += ["failed", "", "no"]
    else:
        beats = "yes" if beats_random(row, sticks) else "**no**"
        cells += [_bounds(row["trained"]), way_to_expert(mean_of(row), sticks), beats]
    cost = row["cpu_s_per_update"]
    cells += [f"{row['updates']:,}", f"{row['agent_steps']:,}", f"{cost:.3f}" if cost else ""]
    if row["failed"] is not None:
        return _cells([*cells, "", ""])
    took = row["latency"]
    cells.append(f"{took['p50_ms']:.2f} / {took['p99_ms']:.2f} ms")
    return _cells([*cells, f"{row['file_bytes'] / 1e6:.1f} MB"])


def commands(rows: Sequence[Row], task: str) -> str:
    """How the rows were made, as a block of commands."""
    made: dict[str, list[str]] = {}
    for row in rows:
        words = row["command"].replace(f"{row['preset']}-{row['seed']}", "PRESET-SEED")
        words = words.replace(f"--preset {row['preset']} ", "--preset PRESET ")
        words = re.sub(r"--seed \d+", "--seed SEED", words)
        made.setdefault(words, []).append(row["preset"])
    usual = max(made, key=lambda words: len(made[words]), default="")
    lines = ["make results" + ("" if task == "seek" else f" RESULTS='--task {task}'")]
    for words, names in sorted(made.items(), key=lambda pair: pair[0] != usual):
        lines += [words + ("" if words == usual else f"    # {', '.join(names)}")]
    return "```\n" + "\n".join(lines) + "\n```"


def _cells(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _bounds(got: Row) -> str:
    return f"{got['mean']:.1f} ({got['low']:.1f} .. {got['high']:.1f})"


def draw(rows: Sequence[Row], sticks: Row, path: Path) -> None:
    """Write the training curves of ``rows`` as a PNG: a colour for each preset."""
    from matplotlib import colormaps

    figure, axes = figure_of()
    palette, presets = colormaps["tab10"], sorted({row["preset"] for row in rows})
    named: set[str] = set()
    for row in rows:  # best first, and so in the legend
        preset, curve = row["preset"], row["curve"]
        n = presets.index(preset)
        axes.plot(
            curve["cpu_minutes"],
            curve["return"],
            color=palette(n % 10),
            ls="-" if n < 10 else "-.",
            lw=1.8,
            label=None if preset in named else preset,
        )
        named.add(preset)
    for name, ink in (("expert", "#1f2933"), ("random", "#7b8794")):
        if sticks[name] is not None:
            axes.axhline(sticks[name]["mean"], color=ink, lw=1.2, ls="--", label=name)
    axes.set_xlim(left=0)
    axes.set_xlabel("minutes of CPU time on one thread")
    axes.set_ylabel(f"return of training episodes, mean of {rows[0]['curve']['window']}")
    axes.set_title(f"{sticks['task']}: every preset, the same CPU time", loc="left")
    save(figure, axes, path)

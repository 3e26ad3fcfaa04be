"""Draws a data sheet for people: as rows for a terminal, and as a page of Markdown."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from wm_core.contract.errors import shown
from wm_core.contract.files import json_text, write_durably
from wm_core.recordings.care.moments import moment
from wm_core.recordings.care.sheet import DataSheet


def write_sheet(sheet: DataSheet, path: Path) -> None:
    """Write the sheet to ``path``: as JSON where the name ends so, else as Markdown.

    Raises:
        OSError: where the disk refuses.
    """
    text = json_text(sheet.as_json(), indent=2) if path.suffix == ".json" else _markdown(sheet)
    write_durably(path, (text.rstrip() + "\n").encode())


def _markdown(sheet: DataSheet) -> str:
    """Write the sheet as a page of Markdown."""
    parts = ["# Data sheet", "", *_table(("", ""), sheet_rows(sheet))]
    robots = [(name, *map(str, _ordered(facts))) for name, facts in sheet.robots.items()]
    if robots:
        parts += ["", "## Who made it", "", *_table(("robot", *_ROBOT), robots)]
    if sheet.tasks:
        rows = [(task or "(none)", share(n, sheet.steps)) for task, n in sheet.tasks.items()]
        parts += ["", "## Tasks", "", *_table(("task", "steps"), rows)]
    if sheet.policies:
        rows = [(acting(v), share(n, sheet.steps)) for v, n in sheet.policies.items()]
        parts += ["", "## Which policies acted", "", *_table(("version", "steps"), rows)]
    for title, counts in (
        ("Never stored, by reason (steps)", sheet.left_out),
        ("Stored and not learnt from, by what is wrong (steps)", sheet.invalid),
        ("Chunks that cannot be read", sheet.unreadable),
    ):
        if counts:
            rows = [(name, str(n)) for name, n in counts.items()]
            parts += ["", f"## {title}", "", *_table(("reason", "count"), rows)]
    for number, spec in enumerate(sheet.specs, 1):
        content = json_text(spec, indent=1)
        parts += ["", f"## Spec {number}", "", "```json", content, "```"]
    return "\n".join(parts) + "\n"


_ROBOT = ("sessions", "episodes", "steps", "interventions", "bytes")


def _ordered(facts: dict[str, Any]) -> list[Any]:
    return [facts.get(name, 0) for name in _ROBOT]


def _table(heads: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    return lines + [f"| {' | '.join(_cell(c) for c in row)} |" for row in rows]


def _cell(text: str) -> str:
    return shown(text).replace("|", "\\|")


def sheet_rows(sheet: DataSheet) -> list[tuple[str, str]]:
    """List (what, how much) of a sheet, for people."""
    whole = f"{sheet.whole_episodes} of them whole, {sheet.terminal_episodes} terminal"
    rows = [
        ("store", sheet.store),
        ("hash of the set", sheet.sha256),
        ("episodes", f"{sheet.episodes}, {whole}"),
        ("steps", f"{sheet.steps} in {sheet.hours:.3g} hours"),
        ("chunks", f"{sheet.chunks} of {sheet.bytes / 1e6:.4g} MB"),
        ("compression", f"{sheet.compression:.3g} : 1"),
    ]
    if sheet.pictures:
        cameras = (f"{name} in {n} steps" for name, n in sheet.pictures.items())
        rows.append(("as JPEG, with loss", ", ".join(cameras)))
    if sheet.first_ns is not None and sheet.last_ns is not None:
        rows.append(("recorded", f"{moment(sheet.first_ns)} to {moment(sheet.last_ns)}"))
    if sheet.return_mean is not None:
        low, high = sheet.return_min, sheet.return_max
        rows.append(("return", f"{sheet.return_mean:.4g} on average, {low:.4g} to {high:.4g}"))
    rows += [
        ("steps with a reward", share(sheet.rewarded_steps, sheet.steps)),
        ("interventions", share(sheet.interventions, sheet.steps)),
        (
            "written by",
            ", ".join(f"{k or 'unknown'} ({n} chunks)" for k, n in sheet.tools.items()),
        ),
    ]
    for name, count in (
        ("evicted chunks", sheet.evicted_chunks),
        ("chunks in quarantine", sheet.quarantined_chunks),
        ("damaged chunks", sheet.damaged_chunks),
    ):
        if count:
            rows.append((name, str(count)))
    return rows


def share(count: int, total: int) -> str:
    """Say a count and what share of ``total`` it is."""
    return f"{count} ({100 * count / total:.3g} %)" if total else str(count)


def acting(version: str) -> str:
    """Say which policy a recorded version is."""
    return "none (a person, an expert, random)" if version == "-1" else version

"""``wm info FILE``: print what a policy, a chunk, a store or a run says about itself."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console
from rich.table import Table

from wm_core.cli.settings import parse
from wm_core.contract.errors import shown
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen
from wm_core.library.describe import Facts, describe


class InfoSettings(Frozen):
    """Describe a policy, a file of experience, a store or a run; no network is loaded."""

    path: tyro.conf.Positional[Path] = Field(
        description="Policy folder or .onnx file, chunk .mcap, store folder or run folder"
    )
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object instead of a table"
    )


def main(argv: Sequence[str]) -> int:
    """Describe one file or folder; returns the exit status."""
    settings = parse(InfoSettings, argv, verb="info")
    facts = describe(settings.path)
    if settings.json_:
        sys.stdout.write(json_text(facts, default=str) + "\n")
        return 0
    table = Table("", "", title=f"{facts['kind']}: {shown(settings.path)}", title_justify="left")
    table.show_header = False
    for name, value in _flat(facts):
        table.add_row(name, value)
    Console().print(table, markup=False)
    return 0


def _flat(facts: Facts, prefix: str = "") -> list[tuple[str, str]]:
    """(dotted name, text) of every fact, also of the nested ones."""
    rows: list[tuple[str, str]] = []
    for key, value in facts.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            rows += _flat({str(k): v for k, v in value.items()}, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, "\n".join(map(shown, value))))
        elif isinstance(value, float):
            rows.append((name, f"{value:.6g}"))
        else:
            rows.append((name, shown(value)))
    return [(shown(name), text) for name, text in rows]

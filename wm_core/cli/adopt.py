"""``wm adopt``: make a policy of another trainer's ONNX file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import write_durably
from wm_core.contract.spec import Frozen
from wm_core.library.adopt import adopt, answered, overlaid, read_answers, read_network, template


class AdoptSettings(Frozen):
    """Make a policy folder of a network that another trainer exported, such as rsl_rl or SB3.

    What its file does not say is taken from --answers, or asked for on a terminal: what each
    number of an input is, normalisation, the action's scale, units and limits, and the period.
    """

    file: tyro.conf.Positional[Path] = Field(description="ONNX file, or a LEAPP bundle's YAML")
    out: Annotated[Path | None, tyro.conf.arg(aliases=["--to"])] = Field(
        None, description="Folder to write the policy into"
    )
    answers: Path | None = Field(None, description="YAML file of answers, see --template")
    template: Path | None = Field(
        None, description="Write what the file says, and what it lacks, as YAML to this file"
    )


def main(argv: Sequence[str]) -> int:
    """Adopt one file and say what became of it; returns the exit status."""
    settings = parse(AdoptSettings, argv, verb="adopt")
    _, values = read_network(settings.file)
    if settings.answers is not None:
        values = overlaid(values, read_answers(settings.answers))
    console = Console(soft_wrap=True, highlight=False)
    if settings.template is not None:
        write_durably(settings.template, template(values).encode())
        console.print(f"{settings.template}: answer each ? in it", markup=False)
        return 0
    if settings.out is None:
        raise SettingsError("expected --to with the folder to write the policy into, got none")
    if sys.stdin.isatty():
        values = answered(values, lambda text: input(f"{text}\n> "))
    card = adopt(settings.file, settings.out, values).card
    action = card.spec.action
    moves = ", ".join(action.names) or f"{action.size} numbers"
    console.print(
        f"{settings.out}: reads {', '.join(card.spec.inputs)}; commands {moves}; every "
        f"{card.spec.period_s:g} s; proved",
        markup=False,
    )
    return 0

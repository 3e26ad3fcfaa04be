"""``wm presets``: list the systems, or print one's sources and settings."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro
from pydantic import Field
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from wm_core import presets
from wm_core.cli.settings import parse
from wm_core.config import Config
from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import json_text
from wm_core.contract.spec import Frozen


class PresetsSettings(Frozen):
    """List the presets and their parts, or print the sources and settings of one.

    `wm train --preset NAME` trains one; options of `wm train` exchange its parts.
    """

    preset: tyro.conf.Positional[str] = Field(
        "", description="Preset to describe; without one, all are listed"
    )
    size: str = Field(
        "micro", description="Size to show: micro (two CPU cores), paper, or one of V3's"
    )
    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print one JSON object per preset"
    )


def main(argv: Sequence[str]) -> int:
    """List the presets or describe one; returns the exit status."""
    settings = parse(PresetsSettings, argv, verb="presets")
    names = [settings.preset] if settings.preset else _in_size(settings.size)
    configs = {name: presets.make(name, settings.size) for name in names}
    if settings.json_:
        for name, config in configs.items():
            sys.stdout.write(json_text(_facts(name, config)) + "\n")
    elif settings.preset:
        _describe(settings.preset, configs[settings.preset])
    else:
        Console().print(_table(configs, settings.size))
        sys.stderr.write("\nsources and settings of one preset: wm presets NAME\n")
    return 0


def about(preset: str) -> str:
    """Describe where the numbers of ``preset`` come from and what deviates, as plain text."""
    text = (inspect.getdoc(presets.PRESETS[preset]) or "").replace("``", "`")
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def differing(config: Config) -> Iterator[tuple[str, Any, Any]]:
    """Yield (option, value, default) of every setting that differs from the default."""
    values, defaults = config.model_dump(mode="json"), Config().model_dump(mode="json")
    for name in ("preset", "size"):
        values.pop(name)
    yield from _differing(values, defaults, "--")


def _differing(
    values: Mapping[str, Any], defaults: Mapping[str, Any], prefix: str
) -> Iterator[tuple[str, Any, Any]]:
    for key, value in values.items():
        name = prefix + key.replace("_", "-")
        if isinstance(value, dict):
            yield from _differing(value, defaults[key], f"{name}.")
        elif value != defaults[key]:
            yield name, value, defaults[key]


def _in_size(size: str) -> list[str]:
    names = [name for name in presets.PRESETS if size in presets.sizes_of(name)]
    if not names:
        raise SettingsError(nearest(size, presets.SIZES, what="size"))
    return names


def _facts(name: str, config: Config) -> dict[str, Any]:
    return {
        "name": name,
        "size": config.size,
        "sizes": presets.sizes_of(name),
        "parts": presets.row_of(config)._asdict(),
        "about": about(name),
        "config": config.model_dump(mode="json"),
    }


def _table(configs: Mapping[str, Config], size: str) -> Table:
    heads = ("preset", "latent", "backbone", "posterior", "actor", "training")
    table = Table(*heads, title=f"size {size}", title_justify="left", box=SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    table.columns[0].no_wrap = table.columns[3].no_wrap = True
    for name, config in configs.items():
        row = presets.row_of(config)
        acts, learns = f"{row.behavior}, {row.reads}", f"{row.representation}, {row.training}"
        table.add_row(name, row.latent, row.backbone, row.posterior, acts, learns)
    return table


def _describe(name: str, config: Config) -> None:
    out = Console(highlight=False)
    out.print(about(name) + "\n", markup=False)
    out.print(f"sizes: {', '.join(presets.sizes_of(name))}\n", markup=False)
    table = Table("setting", "value", "default", title_justify="left")
    table.title = f"what {name} sets in size {config.size}"
    for option, value, default in differing(config):
        table.add_row(option, str(value), str(default))
    out.print(table)

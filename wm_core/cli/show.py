"""``wm show``: write pictures of what the model imagines beside what happened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.spec import Frozen
from wm_core.library.show import show


class ShowSettings(Frozen):
    """Draw imagined frames below real ones: the model sees a few and imagines the others.

    Rows from the top: what the camera saw, what the model believes, the difference.  The bar is
    green while the model sees and orange where it imagines.
    """

    run: Path = Field(description="Run folder of `wm train`")
    version: str = Field(
        "newest", description="Checkpoint to show: newest, best (by evaluation), or its updates"
    )
    store: Path | None = Field(
        None, description="Store of the real frames; None: the one that the run learnt from"
    )
    to: Path | None = Field(
        None, description="Folder for imagined.gif and imagined.png; None: the run folder"
    )
    windows: int = Field(4, gt=0, description="Windows shown side by side, 1 or more")
    length: int = Field(45, gt=1, description="Agent steps of each window, 2 or more")
    observed: int = Field(5, gt=0, description="Agent steps that the model sees, 1 or more")
    seed: int = Field(0, ge=0, description="Seed of the windows and of the model's draws")


def main(argv: Sequence[str]) -> int:
    """Write the two pictures; returns the exit status."""
    settings = parse(ShowSettings, argv, verb="show")
    pictures = show(**settings.model_dump())
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{pictures.movie}\n{pictures.strip}")
    out.print(
        f"update {pictures.updates}: imagined frames differ by {pictures.error:.1f} of 255 levels "
        f"on average over {pictures.imagined} steps"
    )
    if pictures.cut:
        out.print(pictures.cut)
    return 0

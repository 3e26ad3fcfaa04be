"""``wm data show``: draw an episode of a store as pictures and plots."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.data_care import StoreSettings
from wm_core.cli.settings import parse
from wm_core.recordings.care.draw import draw_episode
from wm_core.recordings.care.episodes import find_episode
from wm_core.recordings.care.place import explained, reading, store_at


class DataShowSettings(StoreSettings):
    """Draw an episode of a store: its images on one sheet, and its numbers over time.

    Writes `EPISODE_frames.png` and `EPISODE_plot.png`, and with --gif a film of it, and prints
    their names.
    """

    episode: tyro.conf.Positional[str] = Field(
        "last", description="Name of the episode as `wm data ls` prints it, or last, best, worst"
    )
    to: Path = Field(Path("."), description="Folder that receives the pictures; made if absent")
    frames: int = Field(24, ge=1, le=600, description="Images of each camera on the sheet")
    columns: int = Field(6, ge=1, le=60, description="Images in one row of the sheet")
    gif: bool = Field(False, description="Write a film of the episode too, as a GIF")
    gif_frames: int = Field(
        300, ge=1, le=2000, description="Images of the film; of longer episodes some are left out"
    )


def main(argv: Sequence[str], verb: str) -> int:
    """Draw; returns the exit status."""
    settings = parse(DataShowSettings, argv, verb=f"data {verb}")
    root = store_at(settings.root)
    with reading(root) as ledger:
        episode = find_episode(root, ledger, settings.episode)
        with explained(settings.to):
            written = draw_episode(
                root, ledger, episode, settings.to,
                frames=settings.frames, columns=settings.columns,
                gif_frames=settings.gif_frames if settings.gif else 0,
            )  # fmt: skip
    console = Console(highlight=False, soft_wrap=True)
    for path in written:
        console.print(str(path), markup=False)
    return 0

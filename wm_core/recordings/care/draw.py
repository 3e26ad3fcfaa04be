"""Writes the pictures of an episode into a folder."""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.files import write_atomically
from wm_core.recordings.care.pictures import contact_sheet, film, plot
from wm_core.recordings.care.played import play_episode
from wm_core.store.episodes import StoredEpisode
from wm_core.store.ledger import Ledger


def draw_episode(
    root: Path,
    ledger: Ledger,
    episode: StoredEpisode,
    to: Path,
    *,
    frames: int = 24,
    columns: int = 6,
    gif_frames: int = 0,
) -> list[Path]:
    """Draw ``episode`` of the store ``root`` into the folder ``to``; returns what was written.

    Args:
        root: the store's folder.
        ledger: of that store.
        episode: as ``find_episode`` gave it.
        to: the folder, which is made where it is missing.
        frames: images of each camera on the sheet.
        columns: images in one of its rows.
        gif_frames: most images of a film; 0: no film.

    Raises:
        StoreError: where one of the episode's chunks cannot be read.
        OSError: where the folder cannot be written to.
    """
    played = play_episode(root, ledger, episode, most_frames=frames)
    pictures = {"plot.png": plot(played)}
    if episode.spec.images:
        pictures["frames.png"] = contact_sheet(played, columns=columns)
        if gif_frames:
            played = play_episode(root, ledger, episode, most_frames=gif_frames)
            seconds = max(float(played.time_s[-1]), episode.spec.period_s)
            pictures["film.gif"] = film(played, fps=len(played.shown) / seconds)
    written = []
    for name, data in sorted(pictures.items()):
        path = to / f"{episode.name.replace('.', '_')}_{name}"
        write_atomically(path, data)
        written.append(path)
    return written

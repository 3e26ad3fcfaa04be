"""Reads one episode of a store as arrays, and of its images those that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wm_core.contract.errors import ChunkRefused, StoreError
from wm_core.contract.spec import Spec
from wm_core.contract.step import FLAGS
from wm_core.format.chunk import Columns, chunk_path
from wm_core.store.episodes import StoredEpisode, spans_of
from wm_core.store.examine import check
from wm_core.store.ledger import Ledger
from wm_core.store.verify import read_chunk


@dataclass
class EpisodeArrays:
    """Holds n consecutive steps of one episode."""

    episode: StoredEpisode
    spec: Spec
    time_s: np.ndarray  #: (n,) float64 seconds since its first step
    action: np.ndarray  #: (n, A) float32
    requested_action: np.ndarray  #: (n, A) float32, NaN where none was recorded
    reward: np.ndarray  #: (n,) float64
    flags: dict[str, np.ndarray]  #: (n,) bool each of ``contract.step.FLAGS``
    version: np.ndarray  #: (n,) int64
    vectors: dict[str, np.ndarray]  #: (n, size) float32
    frames: dict[str, np.ndarray]  #: (k, H, W, 3) uint8 of each camera, at the steps ``shown``
    shown: np.ndarray  #: (k,) int64, steps of the episode from 0


def play_episode(
    root: Path, ledger: Ledger, episode: StoredEpisode, *, most_frames: int
) -> EpisodeArrays:
    """Read ``episode`` of the store ``root``.

    Args:
        root: the store's folder.
        ledger: of that store.
        episode: as ``stored_episodes`` gave it.
        most_frames: images that are kept of each camera, evenly spaced, the first and the last
            among them.

    Raises:
        StoreError: where one of its chunks is damaged or gone, naming its file.
    """
    count = min(most_frames, episode.steps)
    shown = np.unique(np.linspace(0, episode.steps - 1, max(1, count)).round().astype(np.int64))
    parts: dict[str, list[np.ndarray]] = {}
    vectors: dict[str, list[np.ndarray]] = {key: [] for key in episode.spec.vectors}
    frames: dict[str, list[np.ndarray]] = {key: [] for key in episode.spec.images}
    done = 0
    for columns, start, stop in _parts(root, ledger, episode):
        for name, values in (
            ("stamp", columns.stamp_ns), ("action", columns.action),
            ("requested", columns.requested_action),
            *((name, columns.numbers[name]) for name in ("reward", "policy_version", *FLAGS)),
        ):  # fmt: skip
            parts.setdefault(name, []).append(values[start:stop])
        for key, numbers in vectors.items():
            numbers.append(columns.vectors[key][start:stop])
        here = shown[(shown >= done) & (shown < done + stop - start)] - done + start
        for key, image in episode.spec.images.items():
            frames[key] += [image.picture(columns.image(key, int(i))) for i in here]
        done += stop - start
    whole = {name: np.concatenate(values) for name, values in parts.items()}
    stamp = whole["stamp"]
    return EpisodeArrays(
        episode=episode,
        spec=episode.spec,
        time_s=(stamp - stamp[0]) / 1e9,
        action=whole["action"],
        requested_action=whole["requested"],
        reward=whole["reward"],
        flags={name: whole[name] for name in FLAGS},
        version=whole["policy_version"],
        vectors={key: np.concatenate(values) for key, values in vectors.items()},
        frames={key: np.stack(values) for key, values in frames.items()},
        shown=shown,
    )


def _parts(
    root: Path, ledger: Ledger, episode: StoredEpisode
) -> Iterator[tuple[Columns, int, int]]:
    """(chunk, first step in it, step behind the last) of each part of an episode."""
    for row, start, stop in spans_of(ledger, episode):
        read = read_chunk(root, row)
        if read.data is None:
            raise StoreError(
                f"{chunk_path(root, row.key)}: {read.reason}; wm data verify says what else is "
                "wrong, wm data repair saves what can be read"
            )
        try:
            yield check(read.data, row.key, max_bytes=len(read.data)), start, stop
        except ChunkRefused as error:
            raise StoreError(f"{chunk_path(root, row.key)}: {error}") from error

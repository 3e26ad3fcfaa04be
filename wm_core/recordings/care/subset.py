"""Splits a store into reproducible subsets, and writes down which episodes each one holds.

Which episodes are drawn follows from the seed and from their names alone, by a hash: the same
seed draws the same ones on any machine, in whatever order they arrived.  A subset file names
every episode and the hash of every chunk that it lies in, so that anybody with the same data can
make the same subset, or learn that theirs differs.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from wm_core.contract.errors import StoreError, nearest, shown
from wm_core.contract.files import json_text, write_durably
from wm_core.contract.spec import Frozen
from wm_core.recordings.care.episodes import EpisodeFilter, stored_episodes
from wm_core.recordings.care.sheet import kept_rows, set_hash
from wm_core.store.episodes import StoredEpisode, spans_of
from wm_core.store.ledger import Ledger

SUBSET_VERSION = 1
MAX_FILE_BYTES = 1 << 30
PARTS = ("train", "validation")


@dataclass(frozen=True)
class SplitRule:
    """Says which episodes go to the validation part; the first that is given decides."""

    robots: tuple[str, ...] = ()  #: episodes of these robots
    since_ns: int | None = None  #: episodes that began then or later
    share: float = 0.2  #: of the episodes, drawn by ``seed``
    seed: int = 0

    def as_json(self) -> dict[str, Any]:
        """Give what decides as plain values."""
        if self.robots:
            return {"by": "robot", "robots": sorted(self.robots)}
        if self.since_ns is not None:
            return {"by": "date", "since_ns": self.since_ns}
        return {"by": "seed", "share": self.share, "seed": self.seed}


class SubsetChunk(Frozen):
    """Names a chunk that an episode lies in."""

    seq: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class SubsetEpisode(Frozen):
    """Names an episode of a subset: its steps, and the chunks that hold them."""

    robot: str
    session: str
    first_step: int = Field(ge=0)
    steps: int = Field(gt=0)
    chunks: tuple[SubsetChunk, ...]


class SubsetPart(Frozen):
    """Lists the episodes of one part, with the hash of this list."""

    sha256: str
    episodes: tuple[SubsetEpisode, ...]

    @property
    def steps(self) -> int:
        return sum(episode.steps for episode in self.episodes)


class SubsetFile(Frozen):
    """Describes a split of a store; it is written as JSON."""

    version: int = SUBSET_VERSION
    store_sha256: str = Field(description="Hash of the set of chunks that was split")
    rule: dict[str, Any] = Field(description="What decided which part an episode goes to")
    filter: dict[str, Any] = Field(description="Filters that left episodes out before")
    parts: dict[str, SubsetPart] = Field(description="Episodes of each part by its name")


@dataclass
class Split:
    """Holds a subset file with the stored episodes of its parts."""

    file: SubsetFile
    parts: dict[str, list[StoredEpisode]] = field(default_factory=dict)
    pieces: int = 0  #: that are in no part, for they lack a beginning or an end


def split_store(root: Path, ledger: Ledger, rule: SplitRule, wanted: EpisodeFilter) -> Split:
    """Divide the whole episodes of the store ``root`` into a train and a validation part.

    Args:
        root: the store's folder.
        ledger: of that store.
        rule: what decides.
        wanted: other episodes go to no part; nor do those without a beginning or an end.

    Raises:
        StoreError: where no episode is left, or one part would be empty.
    """
    fitting = list(stored_episodes(root, ledger, wanted))
    episodes = [e for e in fitting if e.is_whole]
    if not episodes:
        raise StoreError(f"{root} holds no whole episode that fits; wm data ls lists all")
    for name in rule.robots:
        robots = {robot for robot, _ in ledger.sessions()}
        if name not in robots:
            raise StoreError(nearest(name, robots, what=f"robot in {root}"))
    chosen = _validation(episodes, rule)
    parts = {
        "train": [e for i, e in enumerate(episodes) if i not in chosen],
        "validation": [e for i, e in enumerate(episodes) if i in chosen],
    }
    for name, part in parts.items():
        if not part:
            raise StoreError(
                f"the {name} part would be empty: {len(chosen)} of {len(episodes)} episodes are "
                "for validation; choose another --share, --validate-robots or --validate-since"
            )
    file = SubsetFile(
        store_sha256=_hash_of(ledger),
        rule=rule.as_json(),
        filter={k: v for k, v in vars(wanted).items() if v != getattr(EpisodeFilter(), k)},
        parts={name: _part(ledger, part) for name, part in parts.items()},
    )
    return Split(file, parts, len(fitting) - len(episodes))


def _hash_of(ledger: Ledger) -> str:
    return set_hash((r.robot, r.session, r.seq, r.sha256) for r in kept_rows(ledger))


def _validation(episodes: Sequence[StoredEpisode], rule: SplitRule) -> set[int]:
    """Choose which of ``episodes``, by index, are for validation."""
    if rule.robots:
        return {i for i, e in enumerate(episodes) if e.robot in rule.robots}
    if rule.since_ns is not None:
        return {i for i, e in enumerate(episodes) if e.start_ns >= rule.since_ns}
    order = sorted(range(len(episodes)), key=lambda i: _draw(episodes[i], rule.seed))
    count = round(rule.share * len(episodes))
    if len(episodes) > 1:
        count = min(max(count, 1), len(episodes) - 1)
    return set(order[:count])


def _draw(episode: StoredEpisode, seed: int) -> str:
    """A number that the seed and the name of an episode make, the same on any machine."""
    name = f"{seed} {episode.robot} {episode.session} {episode.first_step}"
    return hashlib.sha256(name.encode()).hexdigest()


def _part(ledger: Ledger, episodes: Sequence[StoredEpisode]) -> SubsetPart:
    listed = tuple(
        SubsetEpisode(
            robot=e.robot, session=e.session, first_step=e.first_step, steps=e.steps,
            chunks=tuple(
                SubsetChunk(seq=row.seq, sha256=row.sha256) for row, _, _ in spans_of(ledger, e)
            ),
        )
        for e in sorted(episodes, key=lambda e: (e.robot, e.session, e.first_step))
    )  # fmt: skip
    return SubsetPart(sha256=_list_hash(listed), episodes=listed)


def _list_hash(episodes: Sequence[SubsetEpisode]) -> str:
    """Hash a list of episodes, which names the subset."""
    lines = [
        f"{e.robot} {e.session} {e.first_step} {e.steps} "
        + " ".join(f"{c.seq}:{c.sha256}" for c in e.chunks)
        for e in episodes
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def write_subset(file: SubsetFile, path: Path) -> None:
    """Write a subset file; the same split gives the same bytes.  Raises ``OSError``."""
    text = json_text(file.model_dump(mode="json"), indent=1, sort_keys=True)
    write_durably(path, (text + "\n").encode())


def read_subset(path: Path) -> SubsetFile:
    """Read a subset file.

    Raises:
        StoreError: where it is none, was changed by hand, or is of another version.
    """
    try:
        with path.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from error
    try:
        version = json.loads(data).get("version")
        if version != SUBSET_VERSION:
            raise StoreError(
                f"{path}: expected a subset file of version {SUBSET_VERSION}, got {version!r:.40}"
            )
        file = SubsetFile.model_validate_json(data)
    except (ValidationError, ValueError, AttributeError, RecursionError) as error:
        first = str(error).splitlines()[0]
        raise StoreError(f"{path} is no subset file: {shown(first, 200)}") from error
    for name, part in file.parts.items():
        if _list_hash(part.episodes) != part.sha256:
            raise StoreError(f"{path}: the list of part {name!r} does not fit its hash")
    return file


def find_subset(root: Path, ledger: Ledger, file: SubsetFile) -> Split:
    """Find the episodes of a subset file in the store ``root``, which may hold more.

    Raises:
        StoreError: where a chunk is missing, or has other bytes than the file says.
    """
    rows = {(r.robot, r.session, r.seq): r for r in kept_rows(ledger)}
    stored = {(e.robot, e.session, e.first_step): e for e in stored_episodes(root, ledger)}
    parts: dict[str, list[StoredEpisode]] = {}
    for name, part in file.parts.items():
        for wanted in part.episodes:
            for chunk in wanted.chunks:
                row = rows.get((wanted.robot, wanted.session, chunk.seq))
                place = f"{wanted.robot}/{wanted.session}/{chunk.seq:08d}.mcap"
                if row is None:
                    raise StoreError(f"{root} lacks the chunk {place} of part {name!r}")
                if row.sha256 != chunk.sha256:
                    raise StoreError(
                        f"{root}: expected sha256 {chunk.sha256} of {place}, got {row.sha256}"
                    )
            episode = stored.get((wanted.robot, wanted.session, wanted.first_step))
            if episode is None or episode.steps != wanted.steps:
                raise StoreError(
                    f"{root} cannot read the episode at step {wanted.first_step} of "
                    f"{wanted.robot}/{wanted.session}; wm data verify says why"
                )
            parts.setdefault(name, []).append(episode)
    return Split(file, parts)

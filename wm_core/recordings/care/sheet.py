"""Writes the data sheet of a store: what it holds, who made it, and one hash that names it all."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wm_core.contract.errors import WmError
from wm_core.contract.spec import Spec
from wm_core.format.chunk import chunk_path
from wm_core.format.front import read_front
from wm_core.recordings.care.episodes import stored_episodes
from wm_core.store.episodes import StoredEpisode
from wm_core.store.index import load_index
from wm_core.store.invalid import InvalidSteps
from wm_core.store.ledger import ChunkRow, Ledger

log = logging.getLogger(__name__)

SHEET_VERSION = 1
_ROWS = 512


@dataclass
class DataSheet:
    """Describes a store; every number is counted from its files and its ledger."""

    store: str
    version: int = SHEET_VERSION
    sha256: str = ""  #: of the list of its chunks and their hashes: names this very set
    chunks: int = 0
    bytes: int = 0  #: of the chunk files
    unpacked_bytes: int = 0  #: of the same observations as arrays
    episodes: int = 0
    whole_episodes: int = 0  #: that begin with a first step and have an end
    terminal_episodes: int = 0
    steps: int = 0
    hours: float = 0.0  #: of the robot's time, by the periods of the steps
    first_ns: int | None = None  #: stamp of the earliest step
    last_ns: int | None = None  #: ... and of the latest first step of an episode
    return_mean: float | None = None  #: of whole episodes
    return_min: float | None = None
    return_max: float | None = None
    rewarded_steps: int = 0
    interventions: int = 0
    robots: dict[str, dict[str, Any]] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)  #: steps
    policies: dict[str, int] = field(default_factory=dict)  #: steps by version; -1: no policy
    tools: dict[str, int] = field(default_factory=dict)  #: chunks by what wrote them
    specs: list[dict[str, Any]] = field(default_factory=list)  #: each with its steps
    pictures: dict[str, int] = field(default_factory=dict)  #: steps by camera, as JPEG pictures
    left_out: dict[str, int] = field(default_factory=dict)  #: steps never stored, by reason
    invalid: dict[str, int] = field(default_factory=dict)  #: stored steps not learnt from
    unreadable: dict[str, int] = field(default_factory=dict)  #: chunks, by reason
    evicted_chunks: int = 0
    quarantined_chunks: int = 0
    damaged_chunks: int = 0

    @property
    def compression(self) -> float:
        """Bytes of the observations as arrays, to a byte on the disk; 0 for an empty store."""
        return self.unpacked_bytes / self.bytes if self.bytes else 0.0

    def as_json(self) -> dict[str, Any]:
        """Give the sheet as plain values."""
        return asdict(self) | {"compression": round(self.compression, 2)}


def set_hash(chunks: Iterable[tuple[str, str, int, str]]) -> str:
    """Hash (robot, session, seq, sha256) of chunks to one sha256 that names the set.

    The order in which they arrived does not matter: two stores with the same chunks have the
    same hash, on any machine.
    """
    lines = sorted(
        f"{robot} {session} {seq:08d} {sha256}\n" for robot, session, seq, sha256 in chunks
    )
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def kept_rows(ledger: Ledger) -> list[ChunkRow]:
    """List the rows of every chunk that was not evicted, in order of arrival."""
    return ledger.since(ledger.pruned_through())


def data_sheet(root: Path, ledger: Ledger) -> DataSheet:
    """Describe the store ``root``; images stay packed, and nothing is written."""
    rows, counts = kept_rows(ledger), ledger.counts()
    sheet = DataSheet(
        store=str(root),
        sha256=set_hash((r.robot, r.session, r.seq, r.sha256) for r in rows),
        chunks=len(rows),
        bytes=sum(r.bytes for r in rows),
        evicted_chunks=counts["chunks"] - len(rows),
        quarantined_chunks=counts["quarantined"],
        damaged_chunks=counts["damaged"],
    )
    left_out: Counter[str] = Counter()
    _add_episodes(sheet, stored_episodes(root, ledger, left_out=left_out))
    sheet.unreadable = dict(left_out)
    _add_chunks(sheet, root, rows)
    return sheet


def _add_episodes(sheet: DataSheet, episodes: Iterable[StoredEpisode]) -> None:
    returns, seconds = [], 0.0
    robots: dict[str, Counter[str]] = {}
    tasks: Counter[str] = Counter()
    policies: Counter[int] = Counter()
    specs: dict[str, tuple[Spec, int]] = {}
    for episode in episodes:
        sheet.episodes += 1
        sheet.steps += episode.steps
        sheet.whole_episodes += episode.is_whole
        sheet.terminal_episodes += episode.end == "terminal"
        sheet.interventions += episode.interventions
        sheet.rewarded_steps += episode.rewarded
        seconds += episode.seconds
        if episode.is_whole:
            returns.append(episode.total)
        start = episode.start_ns
        sheet.first_ns = start if sheet.first_ns is None else min(sheet.first_ns, start)
        sheet.last_ns = start if sheet.last_ns is None else max(sheet.last_ns, start)
        robot = robots.setdefault(episode.robot, Counter())
        robot.update(episodes=1, steps=episode.steps, interventions=episode.interventions)
        tasks[episode.task] += episode.steps
        policies.update(episode.versions)
        text = episode.spec.model_dump_json()
        specs[text] = episode.spec, specs.get(text, (episode.spec, 0))[1] + episode.steps
    sheet.hours = seconds / 3600
    if returns:
        sheet.return_mean = sum(returns) / len(returns)
        sheet.return_min, sheet.return_max = min(returns), max(returns)
    sheet.robots = {name: dict(robots[name]) for name in sorted(robots)}
    sheet.tasks = dict(tasks.most_common())
    sheet.policies = {str(v): policies[v] for v in sorted(policies)}
    sheet.specs = [{"steps": n, **json.loads(text)} for text, (_, n) in specs.items()]
    sheet.unpacked_bytes = sum(n * _step_bytes(spec) for spec, n in specs.values())


def _step_bytes(spec: Spec) -> int:
    return sum(s.recorded_bytes for s in spec.inputs.values()) + 4 * spec.action.size


def _add_chunks(sheet: DataSheet, root: Path, rows: list[ChunkRow]) -> None:
    """Add what only chunks say: tools, sessions, what was left out, what is invalid."""
    dropped: Counter[str] = Counter()
    tools: Counter[str] = Counter()
    pictures: Counter[str] = Counter()
    invalid = InvalidSteps()
    for row in rows:
        try:
            front = read_front(chunk_path(root, row.key))
            invalid.add(load_index(root, row, keep=False))
        except (OSError, ValueError, WmError) as error:
            log.warning("chunk %s is left out: %s", tuple(row.key), error)
            continue
        dropped.update(front.meta.dropped)
        tools[front.library] += 1
        pictures.update(dict.fromkeys(front.meta.codecs, front.meta.steps))
    sessions = Counter(robot for robot, _ in {(r.robot, r.session) for r in rows})
    for name, facts in sheet.robots.items():
        facts["sessions"] = sessions[name]
        facts["bytes"] = sum(r.bytes for r in rows if r.robot == name)
    sheet.left_out, sheet.tools = dict(dropped.most_common()), dict(tools.most_common())
    sheet.invalid, sheet.pictures = dict(invalid.by_reason), dict(pictures.most_common())

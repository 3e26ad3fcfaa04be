"""Reads which frames a person has marked as success or not, and finds them in a store."""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import siblings
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.recordings.care.episodes import find_episode
from wm_core.store.episodes import StoredEpisode, spans_of
from wm_core.store.examine import read_stored
from wm_core.store.ledger import Ledger

_YES = ("1", "true", "yes", "success", "positive")
_NO = ("0", "false", "no", "failure", "negative")
MOST_MARKS = 20_000  #: frames; more are no few


@dataclass(frozen=True)
class Mark:
    """Says of one frame whether it shows success."""

    episode: str  #: as `wm data ls` names it
    step: int  #: in the episode, from 0
    success: bool


@dataclass(frozen=True)
class MarkedStep:
    """Is a marked step as it is stored."""

    mark: Mark
    step: Step
    spec: Spec


def read_marks(path: Path) -> tuple[list[Mark], str]:
    """Read marks from a CSV with the columns episode, step and label, or from YAML.

    In YAML it is a list of such entries.  A step may be a range, ``10-25``.

    Returns:
        The marks, and the sha256 of what they say.

    Raises:
        SettingsError: for a file that says anything else, naming the entry.
    """
    if not path.is_file():
        raise SettingsError(f"--with marks: {nearest(path.name, siblings(path), what='file')}")
    marks: dict[tuple[str, int], Mark] = {}
    for place, entry in _entries(path):
        where = f"--with marks {path}: {place}"
        for mark in _marks_of(entry, where):
            held = marks.setdefault((mark.episode, mark.step), mark)
            if held != mark:
                raise SettingsError(
                    f"{where} marks step {mark.step} of {mark.episode} as the opposite of before"
                )
        if len(marks) > MOST_MARKS:
            raise SettingsError(f"{where}: expected at most {MOST_MARKS} marked frames, got more")
    for success, name in ((True, "yes"), (False, "no")):
        count = sum(mark.success == success for mark in marks.values())
        if count < 2:
            raise SettingsError(
                f"--with marks {path}: expected at least 2 frames with label {name}, got {count}; "
                "frames of both kinds teach a classifier"
            )
    text = "\n".join(f"{m.episode} {m.step} {m.success}" for m in marks.values())
    return list(marks.values()), hashlib.sha256(text.encode()).hexdigest()


def _entries(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    try:
        text = path.read_text()
    except (OSError, ValueError) as error:
        raise SettingsError(f"--with marks {path}: {error}") from error
    if path.suffix not in (".yaml", ".yml"):
        rows = csv.DictReader(io.StringIO(text))
        lacking = {"episode", "step", "label"} - {*(rows.fieldnames or ())}
        if lacking:
            raise SettingsError(
                f"--with marks {path}: expected the columns episode, step and label, got "
                f"{', '.join(rows.fieldnames or ()) or 'nothing'}"
            )
        yield from ((f"line {rows.line_num}", row) for row in rows)
        return
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingsError(f"--with marks {path}: expected YAML: {reason}") from error
    if not isinstance(values, list) or not all(isinstance(entry, dict) for entry in values):
        raise SettingsError(
            f"--with marks {path}: expected a list of entries with episode, step and label"
        )
    yield from ((f"entry {number}", entry) for number, entry in enumerate(values, 1))


def _marks_of(entry: Mapping[str, Any], where: str) -> list[Mark]:
    lacking = [name for name in ("episode", "step", "label") if entry.get(name) in (None, "")]
    if lacking:
        raise SettingsError(f"{where} lacks {', '.join(lacking)}")
    label, steps = str(entry["label"]).strip().lower(), str(entry["step"]).strip()
    if label not in (*_YES, *_NO):
        raise SettingsError(f"{where}: expected the label yes or no, got {label!r}")
    first, dash, last = steps.partition("-")
    if not first.isdecimal() or (dash and not last.isdecimal()):
        raise SettingsError(f"{where}: expected a step as 12, or a range as 10-25, got {steps!r}")
    end = int(last) if dash else int(first)
    if not int(first) <= end < int(first) + MOST_MARKS:
        raise SettingsError(f"{where}: expected a range that grows, got {steps!r}")
    episode = str(entry["episode"]).strip()
    return [Mark(episode, n, label in _YES) for n in range(int(first), end + 1)]


def marked_steps(root: Path, ledger: Ledger, marks: list[Mark]) -> list[MarkedStep]:
    """Read the marked steps of the store ``root``, in the order of their marks.

    Raises:
        StoreError: for an episode that is not there (naming the nearest).
        SettingsError: for a step that its episode does not have.
        ChunkRefused: where a chunk is damaged.
    """
    of_episode: dict[str, list[Mark]] = {}
    for mark in marks:
        of_episode.setdefault(mark.episode, []).append(mark)
    found: dict[Mark, MarkedStep] = {}
    for name, wanted in of_episode.items():
        episode = find_episode(root, ledger, name)
        for mark in wanted:
            if mark.step >= episode.steps:
                raise SettingsError(
                    f"--with marks: episode {name} has the steps 0 to {episode.steps - 1}, got a "
                    f"mark at {mark.step}"
                )
        for mark, step in _steps_of(root, ledger, episode, wanted):
            found[mark] = MarkedStep(mark, step, episode.spec)
    return [found[mark] for mark in marks]


def _steps_of(
    root: Path, ledger: Ledger, episode: StoredEpisode, wanted: list[Mark]
) -> Iterator[tuple[Mark, Step]]:
    begin = 0
    for row, start, stop in spans_of(ledger, episode):
        here = [mark for mark in wanted if begin <= mark.step < begin + stop - start]
        if here:
            _, steps = decode_chunk(read_stored(chunk_path(root, row.key), row))
            yield from ((mark, steps[start + mark.step - begin]) for mark in here)
        begin += stop - start

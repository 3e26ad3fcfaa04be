"""Is the Source of every table: a spec, and episodes of rows that a format's reader yields."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from wm_core.contract.errors import RecordingError
from wm_core.contract.files import json_text
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.tables.rows import Rows, StepMaker

_BLOCK = 1 << 20  # bytes that are hashed at a time


class TableSource:
    """Reads a table as episodes of Steps.

    Args:
        name: the robot's name.
        task: what was done.
        spec: of every step.
        files: what is read, hashed for the fingerprint.
        options: what was said, which is part of the fingerprint too.
        rows: yields the rows of each episode, each read to its end before the next; it is given
            the counts of what is left out.
        notes: what was found out about the data, for people.
    """

    def __init__(
        self,
        *,
        name: str,
        task: str,
        spec: Spec,
        files: Sequence[Path],
        options: ReadOptions,
        rows: Callable[[Counter[str]], Iterator[Rows]],
        notes: Sequence[str] = (),
    ) -> None:
        self.name, self.task, self.spec, self.notes = name, task, spec, list(notes)
        self.left_out: Counter[str] = Counter()
        self._files, self._options, self._rows = files, options, rows
        self._fingerprint = ""

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:
            said = {"name": self.name, "task": self.task, "spec": self.spec.model_dump_json()}
            said |= {k: v for k, v in self._options.said().items() if k in _MAPPING}
            self._fingerprint = digest(self._files, json_text(dict(sorted(said.items()))))
        return self._fingerprint

    def episodes(self) -> Iterator[Iterable[Step]]:
        self.left_out.clear()
        maker = StepMaker(
            self.spec,
            self.left_out,
            from_s=self._options.from_s,
            until_s=self._options.until_s,
        )
        for rows in self._rows(self.left_out):
            yield from maker.episodes(rows)


_MAPPING = frozenset(ReadOptions.model_fields) - {"robot", "name", "task"}


def digest(files: Sequence[Path], said: str) -> str:
    """Hash the bytes of ``files``, in order, and what was said: 64 hexadecimal digits.

    Raises:
        RecordingError: for a file that cannot be read.
    """
    total = hashlib.sha256(said.encode())
    for path in files:
        one = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(_BLOCK):
                    one.update(block)
        except OSError as error:
            raise RecordingError(f"{path}: cannot be read: {error}") from None
        total.update(one.digest())
    return total.hexdigest()

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

NO_REWARD = "no reward in it: every reward is 0"
#: what is counted and nevertheless taken, and what it is called
CHANGED = {
    "action_clipped": "steps had a command beyond its bounds, taken as the bound",
    "not_finite_and_kept_as_invalid": "steps hold NaN or infinity: kept, never learnt from",
    "last_reward_counted_one_step_early": "rewards of a last action came with the last "
    "observation, because none follows",
    "done_before_the_end": "rows said done before the last of their episode, which went on",
    "gap_in_time": "jumps in time, each the end of an episode",
    "reward_before_the_first_action": "first rows had a reward that no action had earned",
}
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
        steps: of all episodes, as far as it is known.
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
        steps: int = 0,
    ) -> None:
        self.name, self.task, self.spec = name, task, spec
        self._counts: Counter[str] = Counter()
        self._files, self._options, self._rows, self._notes = files, options, rows, list(notes)
        self._steps = steps
        self._fingerprint = ""

    @property
    def left_out(self) -> Counter[str]:
        return Counter({k: n for k, n in self._counts.items() if k not in CHANGED})

    @property
    def changed(self) -> Counter[str]:
        """Count by reason, a key of ``CHANGED``, what was taken and not as it stands."""
        return Counter({k: n for k, n in self._counts.items() if k in CHANGED})

    @property
    def notes(self) -> list[str]:
        """Say what was found out about the data, and what was not taken as it stands."""
        return [*self._notes, *(f"{n:,} {CHANGED[k]}" for k, n in self.changed.items())]

    @property
    def expected_bytes(self) -> int:
        """Bound the bytes of all steps before they are packed; 0 where that is not known."""
        return self._steps * sum(sensor.recorded_bytes for sensor in self.spec.inputs.values())

    @property
    def fingerprint(self) -> str:
        if not self._fingerprint:
            said = {"name": self.name, "task": self.task, "spec": self.spec.model_dump_json()}
            said |= {k: v for k, v in self._options.said().items() if k in _MAPPING}
            self._fingerprint = digest(self._files, json_text(dict(sorted(said.items()))))
        return self._fingerprint

    def episodes(self) -> Iterator[Iterable[Step]]:
        self._counts.clear()
        maker = StepMaker(
            self.spec,
            self._counts,
            from_s=self._options.from_s,
            until_s=self._options.until_s,
        )
        for rows in self._rows(self._counts):
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

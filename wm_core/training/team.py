"""The workers of a run: how they meet, what the first says to the others, and how one is lost.

The first worker owns the run: its folder, collecting, evaluation and export.  The others only
compute their share of each update, and hear what to do from the first.  What a worker says is
broadcast among CPUs; gradients and latents go by the backend of the device (gloo, or NCCL).
"""

from __future__ import annotations

import contextlib
import io
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from enum import IntEnum
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from wm_core.contract.errors import WmError, shown
from wm_core.nn.joined import Place

START_S = 300.0  #: seconds in which a worker has to import its libraries and report
_UNTIL_TOLD = timedelta(days=3650)  #: a worker waits for the first as long as it lives
_LOOK_S = 0.1  #: between two looks at a worker that is starting or has fallen silent
_LAST_WORDS_S = 3.0  #: in which a worker that failed may say why

Alive = Callable[[int], str]  #: how worker ``rank`` ended; empty while it runs or nobody knows


class Word(IntEnum):
    """What the first worker asks of the others."""

    END = 0  #: leave
    STATE = 1  #: take over my state
    SESSIONS = 2  #: these are the sessions behind the numbers in my keys
    UPDATE = 3  #: learn your share of these windows


class WorkersFailed(WmError):
    """Reports a worker that ended, or does not answer any more: the run can be resumed."""


class Team:
    """The workers of one run, this process among them; joined by torch's default process group.

    Args:
        place: this process's.
        meeting: the store of torch at which they meet.
        device: that this process computes on; of the same kind everywhere.
        numbers: that go with each word of the first.
        answer_s: most seconds that one waits for another within an update.
        ended: says how a worker ended.

    Raises:
        WorkersFailed: where one does not begin.
    """

    def __init__(
        self,
        place: Place,
        meeting: dist.Store,
        device: torch.device,
        *,
        numbers: int,
        answer_s: float,
        ended: Alive = lambda rank: "",
    ) -> None:
        self.place, self._meeting, self._ended = place, meeting, ended
        self._numbers, self._answer_s = numbers, answer_s
        self._updating = False  # an update that failed: nobody listens any more
        self._meet()
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        with self.reporting():
            dist.init_process_group(
                backend,
                store=dist.PrefixStore("workers", meeting),
                rank=place.rank,
                world_size=place.size,
                timeout=timedelta(seconds=answer_s),
            )
            self._control = dist.new_group(backend="gloo", timeout=_UNTIL_TOLD)

    def _meet(self) -> None:
        """Wait until every worker has reported; the first names one that failed meanwhile."""
        self._meeting.set(f"here/{self.place.rank}", "")
        deadline = time.monotonic() + START_S
        for rank in range(self.place.size):
            while not self._meeting.check([f"here/{rank}"]):
                how = self._said(rank) or self._ended(rank)
                if how or time.monotonic() > deadline:
                    how = how or f"did not begin within {START_S:g} s"
                    raise WorkersFailed(f"worker {rank} of {self.place.size} {how}")
                time.sleep(_LOOK_S)

    # ------------------------------------------------------------------ the first to the others

    def say(self, word: Word, numbers: np.ndarray | None = None) -> None:
        """Tell the others what to do, with (numbers,) int64; None: zeros."""
        told = torch.zeros(1 + self._numbers, dtype=torch.int64)
        told[0] = int(word)
        if numbers is not None:
            told[1:] = torch.from_numpy(numbers)
        self._updating = word is not Word.END
        dist.broadcast(told, 0, group=self._control)

    def hear(self) -> tuple[Word, np.ndarray]:
        """Wait for what the first says: a word and (numbers,) int64."""
        heard = torch.zeros(1 + self._numbers, dtype=torch.int64)
        dist.broadcast(heard, 0, group=self._control)
        return Word(int(heard[0])), heard[1:].numpy()

    def share(self, tensor: Tensor) -> Tensor:
        """(...) the first's ``tensor`` (...), on the CPU, in the place of everybody's."""
        dist.broadcast(tensor, 0)
        return tensor

    def share_state(self, state: Mapping[str, Any] | None) -> dict[str, Any]:
        """Give everybody the first's ``state``: tensors, numbers and plain containers."""
        buffer = io.BytesIO()
        if self.place.rank == 0:
            torch.save(state, buffer)
        size = self.share(torch.tensor(len(buffer.getbuffer())))
        data = np.empty(int(size), np.uint8)
        if self.place.rank == 0:
            data[:] = np.frombuffer(buffer.getbuffer(), np.uint8)
        self.share(torch.from_numpy(data))
        loaded: dict[str, Any] = torch.load(
            io.BytesIO(data.tobytes()), weights_only=True, map_location="cpu"
        )
        return loaded

    # ------------------------------------------------------------------ among all

    def add_up(self, numbers: list[float]) -> list[float]:
        """The sums over the workers of such ``numbers``."""
        summed = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(summed)
        return summed.tolist()

    # ------------------------------------------------------------------ what goes wrong

    @contextlib.contextmanager
    def reporting(self) -> Iterator[None]:
        """Turn a failure to reach the others into ``WorkersFailed`` that names one and its fault.

        An error of this worker is left for the first to read.
        """
        try:
            yield
        except Exception as error:
            if _is_of_network(error):
                hint = "; go on with --resume" if self._updating else ""
                raise WorkersFailed(f"{self._why(str(error))}{hint}") from error
            leave_fault(self._meeting, self.place.rank, error)
            raise

    def _said(self, rank: int) -> str:
        """What worker ``rank`` left as its fault; empty where it left none."""
        try:
            if not self._meeting.check([f"fault/{rank}"]):
                return ""
            return f"stopped: {self._meeting.get(f'fault/{rank}').decode()}"
        except RuntimeError:  # whoever keeps the meeting is gone
            return ""

    def _why(self, error: str) -> str:
        """Who is lost, and how; ``error`` is the network's, where nothing better is known."""
        deadline = time.monotonic() + _LAST_WORDS_S
        while True:
            for rank in range(self.place.size):
                how = "" if rank == self.place.rank else self._said(rank) or self._ended(rank)
                if how:
                    return f"worker {rank} of {self.place.size} {how}"
            if time.monotonic() > deadline:
                if "timed out" in error.lower():
                    return f"a worker did not answer within {self._answer_s:g} s"
                return f"a worker is out of reach: {shown(error.rpartition('] ')[2], 160)}"
            time.sleep(_LOOK_S)

    def updated(self) -> None:
        """Note that an update has ended: everybody listens again."""
        self._updating = False

    def close(self) -> None:
        """Send the others away, and leave; a second call does nothing."""
        if not dist.is_initialized():
            return
        if self.place.rank == 0 and not self._updating:
            with contextlib.suppress(RuntimeError):
                self.say(Word.END)
        dist.destroy_process_group()


def leave_fault(meeting: dist.Store, rank: int, error: BaseException) -> None:
    """Leave for the others why the worker ``rank`` stops."""
    kind = "" if isinstance(error, WmError) else f"{type(error).__name__}: "
    with contextlib.suppress(RuntimeError):  # whoever keeps the meeting is gone
        meeting.set(f"fault/{rank}", shown(f"{kind}{error}", 400))


def _is_of_network(error: Exception) -> bool:
    """Whether ``error`` comes from between the workers: gloo raises plain RuntimeErrors."""
    text = str(error).lower()
    named = any(name in text for name in ("gloo", "nccl", "connection", "timed out"))
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and named)

"""What the trainer and a collector's process say to each other, and the memory that they share."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

from wm_core.config import Config
from wm_core.contract.spec import Spec
from wm_core.training.collect import EpisodeResult


@dataclass(frozen=True)
class CollectorPlan:
    """Says what a collector's process is made of."""

    number: int  #: of the collector, from 0
    root: Path  #: of the store that it writes to
    task: str
    spec: Spec
    config: Config
    entropy: tuple[int, ...]  #: of every draw that it makes
    trainer: int  #: id of the process that trains


@dataclass(frozen=True)
class Collect:
    """Asks for at least so many agent steps, which one order after another takes."""

    steps: int
    explore: bool  #: by random actions instead of the policy
    version: int  #: of the published policy, recorded with the steps


class TakeWeights:
    """Says that the shared memory holds newer weights; they are taken before the next order."""


class TookWeights:
    """Answers that the shared memory may be written again."""


class Ready:
    """Says that environments and network are made."""


@dataclass(frozen=True)
class Collected:
    """Answers an order whose steps are durable in the store."""

    episodes: tuple[EpisodeResult, ...]  #: that ended meanwhile
    restarts: int  #: environments made anew since the process began


@dataclass(frozen=True)
class GaveUp:
    """Says why the process ends."""

    kind: str  #: class of the error
    reason: str


class Pulse(ctypes.Structure):
    """Is written by the process at every tick and read by the trainer, without a word.

    Times are those of the steady clock, which all processes share, in seconds.
    """

    _fields_ = (
        ("beat_s", ctypes.c_double),  #: when its last tick began; 0: it does not act just now
        ("waiting_since_s", ctypes.c_double),  #: since when it has no order; 0: it has one
        ("waited_s", ctypes.c_double),  #: in all, before that
        ("cpu_s", ctypes.c_double),  #: CPU time of the process
        ("ends", ctypes.c_double),  #: the trainer's wish that it ends: 1; else 0
    )

"""Reports how far a run is: on the screen and in ``status.json``."""

from __future__ import annotations

import os
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from wm_core.contract.files import json_text, write_atomically

NAME = "status.json"
ENDED = ("done", "stopped", "diverged", "failed")  #: phases of a run whose process is over
RATE_WINDOW_S = 20.0  #: seconds over which rates are taken


@dataclass(frozen=True)
class Status:
    """The progress of a run at one time; ``status.json`` holds exactly these fields."""

    #: starting, collecting, waiting (for data), training, evaluating; in the end done (the goal is
    #: reached), stopped (by a signal), diverged, or failed
    phase: str
    updates: int
    updates_goal: int | None  #: None where no number of updates ends the run
    updates_per_s: float
    agent_steps: int  #: durable in the store
    agent_steps_goal: int | None
    agent_steps_per_s: float
    published_version: int  #: -1 before the first
    episodes: int
    last_return: float | None
    time: float  #: seconds since the epoch
    metrics: dict[str, float] = field(default_factory=dict)  #: of the last line in the log
    cpu_s: float = 0.0  #: CPU time of the whole run
    cpu_s_goal: float | None = None  #: None where no ``train.minutes`` says when to stop
    left_out: dict[str, int] = field(default_factory=dict)  #: stored chunks of no use, by reason
    #: stored steps that are not learnt from because a number in them is not finite or too large,
    #: by what holds it: observation, action, reward
    invalid_steps: dict[str, int] = field(default_factory=dict)
    waiting_for: str = ""  #: what the run waits for, in a sentence; empty where it does not wait
    env_restarts: int = 0  #: environments that were made anew after they had raised an error
    #: the last one: mean, low, high, episodes, and best, the highest mean so far
    evaluation: dict[str, Any] = field(default_factory=dict)
    #: updates that an earlier process had shown when it was killed and that are done again;
    #: ``updates`` stays at what was shown until they are done
    updates_redone: int = 0
    unwritten: dict[str, int] = field(default_factory=dict)  #: failed writes, by what of the run
    #: collectors beside the learner: how many there are and are ready, which side ``waits``
    #: (learner, collectors, neither), each side's share of the last 20 s and its seconds in all;
    #: empty where collecting and learning take turns
    collectors: dict[str, Any] = field(default_factory=dict)
    pid: int = field(default_factory=os.getpid)  #: of the process that trains

    def write(self, run: Path) -> None:
        """Replace the status file of ``run`` in one piece; what is not finite is null there."""
        write_atomically(run / NAME, json_text(asdict(self)).encode())


class Rate:
    """Measures events per second over the last ``RATE_WINDOW_S``."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, count: int) -> float:
        """Compute the rate at ``now_s`` from the ``count`` of events so far."""
        self._marks.append((now_s, count))
        while len(self._marks) > 2 and now_s - self._marks[1][0] > RATE_WINDOW_S:
            self._marks.popleft()
        first_s, first = self._marks[0]
        return (count - first) / (now_s - first_s) if now_s > first_s else 0.0

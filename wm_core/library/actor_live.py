"""Says how a simulated actor is doing, for whoever watches it, as a robot does of itself."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

import numpy as np

from wm_core.contract.live import ACTS, MAX_ACTIONS, LiveReport
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.link.robot.live import LiveSnapshot

#: counters of the uploader by the names under which robots tell them
_SENT = {
    "acked": "chunks_acked",
    "refused": "chunks_refused",
    "pending_chunks": "chunks_waiting",
    "pending_bytes": "bytes_waiting",
    "oldest_age_s": "oldest_unacked_s",
    "bytes_sent": "bytes_sent",
}


class ActorView:
    """Looks at the first environment of an actor; the acting thread leaves the newest behind.

    Args:
        task: that is played.
    """

    def __init__(self, task: str) -> None:
        self._task = task
        self.spec: Spec | None = None  #: of what is played
        self.newest: tuple[int, Step] | None = None  #: ns since 1970, and the step taken then
        self.mode, self.problem = "no_policy", ""  #: how it stands, and why nothing comes or goes
        self.policy = -1  #: version that acts
        self.counters: Mapping[str, float] = {}  #: by the names of a live report

    def see(self, step: Step) -> None:
        """Take a step for the newest; its arrays must not change any more."""
        self.newest = (time.time_ns(), step)

    def count(self, counters: Mapping[str, float], sent: Mapping[str, object]) -> None:
        """Take the newest counters, of the actor and of its uploader."""
        told = {new: sent.get(old) for old, new in _SENT.items()}
        known = {name: n for name, n in told.items() if isinstance(n, int | float)}
        self.counters = {**known, **counters}

    def snapshot(self, pictures: bool) -> LiveSnapshot:
        """Look at the actor now; with its newest pictures if asked (the sending thread)."""
        spec, newest, now_ns = self.spec, self.newest, time.time_ns()
        report = LiveReport(
            t_ns=now_ns,
            mode=ACTS if self.mode == "acting" else self.mode,
            mode_text=self.problem[:500],
            policy=self.policy,
            task=self._task[:500],
            counters={k[:64]: n for k, n in self.counters.items() if math.isfinite(n)},
        )
        if spec is None or newest is None:
            return LiveSnapshot(report)
        t_ns, step = newest
        low, high, names = _limits(spec)
        age_ms = max(0.0, (now_ns - t_ns) * 1e-6)
        report = report.model_copy(
            update={
                "observation_age_ms": age_ms,
                "tick_age_ms": age_ms,
                "period_ms": spec.period_s * 1e3,
                "action": _action(spec, step.action),
                "action_low": low,
                "action_high": high,
                "action_names": names,
            }
        )
        images = {
            name[:64]: (t_ns, kind.picture(step.obs[name]))
            for name, kind in (spec.images.items() if pictures else ())
        }
        return LiveSnapshot(report, images)


def _limits(spec: Spec) -> tuple[tuple[float, ...], tuple[float, ...], tuple[str, ...]]:
    action, size = spec.action, min(spec.action.size, MAX_ACTIONS)
    names = action.names or tuple(f"action_{i}" for i in range(size))
    if action.discrete:
        return (0.0,) * size, (1.0,) * size, names[:size]
    return action.low[:size], action.high[:size], tuple(n[:64] for n in names[:size])


def _action(spec: Spec, action: np.ndarray) -> tuple[float, ...]:
    """Give ``action`` (A,) in physical units; a choice stays one-hot."""
    sent = action if spec.action.discrete else spec.action.to_physical(action)
    return tuple(round(float(v), 6) for v in sent[:MAX_ACTIONS])

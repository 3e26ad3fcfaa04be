"""Says how the robot is doing at one moment, for whoever watches it; no ROS.

Called in the thread that sends it: the control thread leaves its newest tick and its newest report
behind, which nobody changes any more, and never waits.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from wm_core.contract.live import ACTS, MAX_ACTIONS, LiveReport, LiveSafeAction
from wm_core.contract.spec import Spec
from wm_core.link.robot.live import LiveSnapshot, rest_in_s
from wm_ros.commands.channels import CommandSet
from wm_ros.control_loop import ControlLoop, Tick
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.trusted import running_of
from wm_ros.reporting.status import StatusBoard
from wm_ros.safety.actuation import Actuation
from wm_ros.stream import Stream

_LATE_PERIODS = 3  #: without a frame: then the age is that of the silence
#: counters by the names under which they are told
_TOLD = {
    "ticks": "ticks",
    "missed_ticks": "missed_ticks",
    "safe_ticks": "safe_ticks",
    "episodes": "episodes",
    "return_now": "return_now",
    "return_last": "return_last",
    "swaps": "swaps",
    "steps_recorded": "steps_recorded",
    "steps_invalid": "steps_invalid",
    "policy_hz": "policy_hz",
    "camera_hz": "camera_hz",
}
_TOLD_OF_STREAM = {
    "spool_steps_sealed": "steps_spooled",
    "spool_queue_steps": "steps_queued",
    "spool_chunks_sealed": "chunks_sealed",
    "spool_bytes_on_disk": "spool_bytes",
    "uploader_acked": "chunks_acked",
    "uploader_refused": "chunks_refused",
    "uploader_pending_chunks": "chunks_waiting",
    "uploader_pending_bytes": "bytes_waiting",
    "uploader_oldest_age_s": "oldest_unacked_s",
    "uploader_bytes_sent": "bytes_sent",
}


class LiveView:
    """Looks at the robot for whoever watches it.

    Args:
        loop: whose newest tick is told.
        board: whose newest report is told.
        slot: the running policy.
        stream: the way of experience.
        actuation: knows what commands are sent at most.
        spec: gives the spec of the policy; None before the first.
    """

    def __init__(
        self,
        loop: ControlLoop,
        board: StatusBoard,
        slot: PolicySlot,
        stream: Stream,
        actuation: Actuation,
        spec: Callable[[], Spec | None],
    ) -> None:
        self._loop, self._board, self._slot = loop, board, slot
        self._stream, self._actuation, self._spec = stream, actuation, spec
        self._images: dict[str, tuple[int, np.ndarray]] = {}
        self._drawn: Mapping[str, np.ndarray] = {}  # the observation that they show

    def rest_s(self) -> float:
        """Give the seconds until the control thread has just sent a command; 0 where none is."""
        tick = self._loop.newest
        if tick is None or not self._loop.active:
            return 0.0
        since_s = (time.monotonic_ns() - tick.left_ns) * 1e-9
        return rest_in_s(since_s, self._loop.pacer.period_ns * 1e-9)

    def snapshot(self, pictures: bool) -> LiveSnapshot:
        """Look at the robot now; with its newest pictures if asked."""
        loop, report = self._loop, self._board.newest
        tick, safe = loop.newest, loop.newest_safe
        now_ns, since_1970_ns = time.monotonic_ns(), time.time_ns()
        to_1970_ns = since_1970_ns - now_ns
        mode = _mode(tick, loop.active)
        running, runner = running_of(self._slot.runner), self._slot.runner
        low, high, names = self._limits()
        standing = str(report.get("standing", ""))
        text = str(report.get("standing_text", "")) if standing == mode else ""
        said = LiveReport(
            t_ns=since_1970_ns,
            mode=mode,
            mode_text=text[:500],
            observation_age_ms=self._observation_age_ms(tick, now_ns),
            tick_age_ms=None if tick is None else (now_ns - tick.left_ns) * 1e-6,
            tick_p99_ms=report.get("work_p99_ms"),
            period_ms=loop.pacer.period_ns * 1e-6,
            policy=-1 if runner is None else runner.card.version,
            policy_sha256="" if running is None else running.sha256,
            task="" if runner is None else runner.card.task[:500],
            action=() if tick is None else self._action(tick.decision.command),
            action_low=low,
            action_high=high,
            action_names=names,
            safe_action=None
            if safe is None or safe.decision.safe is None
            else LiveSafeAction(
                why=safe.decision.safe[:64],
                t_ns=safe.left_ns + to_1970_ns,
                text=text[:500] if safe.decision.safe == standing else "",
            ),
            counters=dict(_counters(report, self._stream)),
        )
        if pictures and tick is not None:
            self._draw(tick.decision.obs, tick.left_ns + to_1970_ns)
        return LiveSnapshot(said, self._images if pictures else {})

    def _observation_age_ms(self, tick: Tick | None, now_ns: int) -> float | None:
        """Give the age of what the newest command answers, or of a silence that lasts."""
        first, period_ns = self._loop.sensors.first, self._loop.pacer.cadence_ns
        age_ms = None if tick is None else tick.obs_age_ms
        if first is None or not first.arrived_ns:
            return None if age_ms is None else max(0.0, age_ms)
        silent_ns = now_ns - first.arrived_ns
        if age_ms is None or silent_ns > _LATE_PERIODS * period_ns:
            age_ms = silent_ns * 1e-6
        return max(0.0, age_ms)

    def _limits(self) -> tuple[tuple[float | None, ...], tuple[float | None, ...], tuple]:
        """Give the least and the most of every number of the action, and their names."""
        spec, commands = self._spec(), self._actuation.commands
        if spec is None:
            return (), (), ()
        if spec.action.discrete:
            size = min(spec.action.size, MAX_ACTIONS)
            names = commands.choices or spec.action.names or [str(i) for i in range(size)]
            return (0.0,) * size, (1.0,) * size, tuple(n[:64] for n in names[:size])
        low, high = self._actuation.limits
        return _numbers(low), _numbers(high), command_names(commands)[:MAX_ACTIONS]

    def _action(self, command: np.ndarray | None) -> tuple[float | None, ...]:
        """Give what was sent; one-hot for a choice, nothing where none says what was sent."""
        spec = self._spec()
        if spec is None or command is None or not command.size:
            return ()
        if not spec.action.discrete:
            return _numbers(command)
        action = self._actuation.action_of(command)
        return () if action is None else _numbers(action)

    def _draw(self, obs: Mapping[str, np.ndarray], t_ns: int) -> None:
        """Draw the images of a new observation; older ones stay where it has none."""
        spec = self._spec()
        if spec is None or not obs or obs is self._drawn:
            return
        self._drawn = obs
        drawn = {
            name[:64]: (t_ns, kind.picture(obs[name]))
            for name, kind in spec.images.items()
            if name in obs
        }
        self._images = {**self._images, **drawn}


def _mode(tick: Tick | None, active: bool) -> str:
    if tick is None or not active:
        return "inactive"
    return (tick.decision.safe or ACTS)[:64]


def command_names(commands: CommandSet) -> tuple[str, ...]:
    """Name the numbers of a command: as its channels or the policy do, else by field or topic."""
    found: list[str] = []
    triples = zip(commands.channels, commands.slices, commands.names, strict=False)
    for channel, part, names in triples:
        known = [*(names or channel.command.fields)]
        rest = range(len(known), part.stop - part.start)
        known += [f"{channel.command.topic.strip('~/')}_{i}" for i in rest]
        found += known[: part.stop - part.start]
    return tuple(name[:64] for name in found)


def _counters(report: Mapping[str, Any], stream: Stream) -> Iterable[tuple[str, float]]:
    """List what is counted, by the names under which it is told."""
    sent: Mapping[str, Any] = report.get("stream", {})
    told = [(new, report.get(old)) for old, new in _TOLD.items()]
    told += [(new, sent.get(old)) for old, new in _TOLD_OF_STREAM.items()]
    dropped = {f"dropped_{reason}": n for reason, n in report.get("dropped", {}).items()}
    lost = {f"lost_{k[14:]}": n for k, n in sent.items() if k.startswith("spool_dropped_")}
    told += [*dropped.items(), *lost.items()]
    try:
        free, most = stream.room()
        told += [("disk_free_bytes", free), ("spool_max_bytes", most)] if most else []
    except OSError:
        pass
    for name, value in told:
        if isinstance(value, int | float) and math.isfinite(value):
            yield name[:64], value


def _numbers(values: np.ndarray) -> tuple[float | None, ...]:
    """Give ``values`` (n,) with None in place of what is not finite."""
    return tuple(
        round(float(v), 6) if math.isfinite(v) else None for v in values[:MAX_ACTIONS].tolist()
    )

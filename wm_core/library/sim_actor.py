"""Plays a task in simulation anywhere and feeds a trainer, as a robot does: ``wm sim-actor``.

Steps go through a spool on the disk and the robots' own protocol, and the newest policy acts as it
comes; the trainer cannot tell it from robots.  A simulation can wait, so nothing is ever dropped:
where the trainer is away for long, it pauses until there is room again.  No torch, no ROS.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from wm_core.contract.files import json_text, write_atomically
from wm_core.contract.frozen import ranged
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey
from wm_core.library.actor_live import ActorView
from wm_core.library.actor_policy import PublishedPolicy
from wm_core.link.robot.access import AccessSettings, read_token
from wm_core.link.robot.live import LiveSender
from wm_core.link.robot.policy_client import PolicyClient
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.uploader import Uploader
from wm_core.training.collect import Collector, RandomActor
from wm_core.training.opening import open_env
from wm_core.training.settings import EnvConfig, ExploreConfig

log = logging.getLogger(__name__)

ACTOR_STATUS = "status.json"
REPORT_S = 1.0  #: seconds between two reports
PAUSE_S = 0.05  #: between two looks at what is waited for
DRAIN_S = 60.0  #: seconds at the end in which the trainer may take what is left
ActorEngine = Literal["process", "ray"]


class SimActorSettings(AccessSettings):
    """Play a task in simulation and feed a trainer, over the protocol of the robots.

    The trainer is `wm serve` with `wm train --follow` beside it.  Experience waits in a folder
    until it is acknowledged, and the newest policy acts as soon as it comes.  Ctrl-C seals and
    uploads what is there; a later start with the same folder uploads what is left.
    """

    trainer: str = Field(description="Address of the trainer's service, as https://host:8765")
    task: str = Field(description="Task: a name from `wm tasks`, a Gymnasium id, or module:Id")
    robot: str = Field("", description="Name to record under; empty: sim- and this machine's name")
    channel: str = Field("main", description="Line of policies to follow")
    token_file: str = Field("", description="File with the robot's token; empty: none is needed")
    folder: Path | None = Field(
        None, description="Folder of spool and policies; None: sim_actor/ROBOT"
    )
    envs: int = ranged(1, 1, 1024, "Environments that act side by side")
    seed: int = ranged(0, 0, 2**63 - 1, "Seed of episodes and of all draws")
    prefill: int = ranged(
        1000, 0, 2**40, "Random steps before the policy, where a trainer has none"
    )
    hold: int = ranged(4, 1, 10_000, "Steps that each of these random actions is held for")
    mean: bool = Field(False, description="Take the likeliest action instead of exploring")
    steps: int | None = Field(None, gt=0, description="Agent steps to end after; None: no limit")
    minutes: float | None = Field(None, gt=0, description="Minutes to end after; None: no limit")
    rate_hz: float = ranged(0.0, 0, 1e6, "Most steps per second of each environment; 0: no limit")
    env: EnvConfig = EnvConfig()
    actors: int = ranged(1, 1, 4096, "Such actors to start, each in a process of its own")
    engine: ActorEngine = Field(
        "process", description="Where actors run: on this machine, or on ray"
    )
    ray_address: str = Field("", description="Ray cluster to use; empty: a local one is started")
    live: bool = Field(True, description="Tell the trainer how it is doing, for its live page")
    quiet: bool = Field(False, description="Show no progress on the terminal")

    @property
    def name(self) -> str:
        """The robot that steps are recorded under."""
        host = re.sub(r"[^a-z0-9_-]", "-", socket.gethostname().lower())
        return self.robot or f"sim-{host}"[:64]

    @property
    def home(self) -> Path:
        """The folder of spool and policies."""
        return self.folder or Path("sim_actor") / self.name


@dataclass(frozen=True)
class SimActorReport:
    """How far an actor is; its ``status.json`` holds exactly these fields."""

    phase: str  #: waiting (for a policy), acting, paused (the spool is full), done
    steps: int
    episodes: int
    last_return: float | None
    version: int  #: of the policy that acts; -1 before the first
    swaps: int  #: policies that took over from another
    chunks_acked: int
    chunks_pending: int
    dropped: int  #: steps that were not recorded
    env_restarts: int
    problem: str  #: why nothing comes or goes, as far as it is known

    def sentence(self) -> str:
        """Say it in one line."""
        parts = [f"{self.phase}: step {self.steps}, {self.episodes} episodes"]
        if self.last_return is not None:
            parts.append(f"return {self.last_return:.1f}")
        parts.append(f"policy {self.version}" if self.version >= 0 else "no policy yet")
        parts.append(f"{self.chunks_acked} chunks acknowledged, {self.chunks_pending} wait")
        if self.dropped:
            parts.append(f"{self.dropped} steps dropped")
        return " · ".join([*parts, self.problem] if self.problem else parts)


class _SpoolRecorder:
    """Records the steps of one environment into a spool, stamped in the environment's time."""

    def __init__(self, spool: Spool, period_s: float, view: ActorView | None) -> None:
        self._spool, self._period_s, self._view = spool, period_s, view
        self._begin_ns, self._count = time.time_ns(), 0

    def add(self, step: Step) -> None:
        stamp_ns = self._begin_ns + round(self._count * self._period_s * 1e9)
        self._count += 1
        self._spool.put(replace(step, stamp_ns=stamp_ns))
        if self._view is not None:
            self._view.see(step)

    def seal(self) -> None:
        self._spool.flush()


class SimActor:
    """One actor: environments, the threads of a robot's link, and the policy that acts.

    Args:
        settings: of the actor.
        stop: ends it between two steps when it is set.
        on_report: called with the progress about once a second.
    """

    def __init__(
        self,
        settings: SimActorSettings,
        stop: threading.Event,
        *,
        on_report: Callable[[SimActorReport], None] = lambda report: None,
    ) -> None:
        self._settings, self._stop, self._on_report = settings, stop, on_report
        ChunkKey(settings.name, session="0" * 32, seq=0).check()
        self._home, token = settings.home, read_token(settings.token_file)
        self._policy = PublishedPolicy(
            self._latest, rows=settings.envs, seed=settings.seed, mean=settings.mean
        )
        self._client = PolicyClient(
            settings.trainer,
            cache=self._home / "policies",
            channel=settings.channel,
            token=token,
            access=settings,
            robot=settings.name,
            running=self._policy.running,
        )
        self._uploader = Uploader(
            self._home / "spool", url=settings.trainer, token=token, access=settings
        )
        self._view = ActorView(settings.task)
        self._live = (
            LiveSender(
                settings.trainer,
                robot=settings.name,
                snapshot=self._view.snapshot,
                token=token,
                access=settings,
            )
            if settings.live
            else None
        )
        self._spools: list[Spool] = []
        self._collector: Collector | None = None
        self._steps = self._episodes = 0
        self._last_return: float | None = None
        self._begun_s, self._report_s, self._next_s = time.monotonic(), 0.0, 0.0

    def play(self) -> SimActorReport:
        """Act until it is enough or ``stop`` is set; returns how far it came.

        Raises:
            SettingsError: where the task does not fit the trainer's policy.
            EnvFault: where the environment cannot go on.
        """
        try:
            while not self._policy.refresh() and not self._is_over():
                self._report("waiting")
                self._stop.wait(PAUSE_S)
            if self._policy.runner is not None and not self._is_over():
                self._open(self._policy.runner.spec)
                self._act(max(0, self._settings.prefill - self._policy.runner.card.agent_steps))
        finally:
            self._close()
        return self._tell("done")

    def _latest(self) -> Path | None:
        return self._client.latest()

    def _open(self, spec: Spec) -> None:
        s = self._settings
        draws = np.random.default_rng((s.seed, 1))
        adapters = []
        with ExitStack() as undo:
            for _ in range(s.envs):
                adapter, _ = open_env(
                    s.task, seed=draws, spec=spec, env=s.env, wait=self._stop.wait
                )
                undo.callback(adapter.env.close)
                adapters.append(adapter)
            undo.pop_all()
        waits = SpoolSettings(overflow="pause_exploration")
        self._spools = [
            Spool(self._home / "spool", robot=s.name, task=s.task, spec=spec, settings=waits)
            for _ in range(s.envs)
        ]
        self._view.spec = spec
        recorders = [
            _SpoolRecorder(spool, spec.period_s, self._view if number == 0 else None)
            for number, spool in enumerate(self._spools)
        ]
        self._collector = Collector(adapters, recorders, spec)

    def _act(self, random_steps: int) -> None:
        assert self._collector is not None
        assert self._policy.runner is not None
        action = self._policy.runner.spec.action
        draws = np.random.default_rng((self._settings.seed, 2))
        explorer = RandomActor(action, draws, ExploreConfig(hold=self._settings.hold))
        while not self._is_over():
            self._policy.refresh()
            while self._is_full() and not self._is_over():
                self._report("paused")
                self._stop.wait(PAUSE_S)
            explores = self._steps < random_steps
            ended = self._collector.collect(explorer if explores else self._policy, 1)
            self._steps += self._settings.envs
            self._episodes += len(ended)
            self._last_return = ended[-1].total if ended else self._last_return
            self._report("acting")
            self._keep_rate()

    def _is_full(self) -> bool:
        return any(spool.pressure() == "pause" for spool in self._spools)

    def _is_over(self) -> bool:
        minutes = self._settings.minutes
        if minutes is not None and time.monotonic() - self._begun_s > 60.0 * minutes:
            return True
        enough = self._settings.steps is not None and self._steps >= self._settings.steps
        return enough or self._stop.is_set()

    def _keep_rate(self) -> None:
        if self._settings.rate_hz:
            now_s = time.monotonic()
            self._next_s = max(self._next_s, now_s - 1.0) + 1.0 / self._settings.rate_hz
            self._stop.wait(max(0.0, self._next_s - now_s))

    def _close(self) -> None:
        """Seal and upload what is open, then end environments and threads."""
        if self._collector is not None:
            self._collector.close()
        for spool in self._spools:
            spool.close()
        if self._spools and not self._uploader.drain(timeout_s=DRAIN_S):
            log.warning("what was not acknowledged waits in %s for the next start", self._home)
        self._uploader.close()
        self._client.close()
        if self._live is not None:
            self._live.close()

    def _report(self, phase: str) -> None:
        """Report, once in a while."""
        now_s = time.monotonic()
        if now_s - self._report_s >= REPORT_S:
            self._report_s = now_s
            self._tell(phase)

    def _tell(self, phase: str) -> SimActorReport:
        sent = self._uploader.counters()
        counts = [spool.counters() for spool in self._spools]
        report = SimActorReport(
            phase=phase,
            steps=self._steps,
            episodes=self._episodes,
            last_return=self._last_return,
            version=self._policy.version,
            swaps=self._policy.swaps,
            chunks_acked=int(sent["acked"]),
            chunks_pending=int(sent["pending_chunks"]),
            dropped=sum(n for c in counts for k, n in c.items() if k.startswith("dropped_")),
            env_restarts=0 if self._collector is None else self._collector.restarts,
            problem=self._policy.problem or str(sent["last_error"]) or self._client.problem(),
        )
        self._show(report, sent)
        write_atomically(self._home / ACTOR_STATUS, json_text(asdict(report)).encode())
        self._on_report(report)
        return report

    def _show(self, report: SimActorReport, sent: Mapping[str, object]) -> None:
        """Leave the newest report behind for whoever watches."""
        view = self._view
        waits = report.phase == "waiting"
        view.mode, view.problem = "no_policy" if waits else report.phase, report.problem
        view.policy = report.version
        counters: dict[str, float] = {
            "steps_recorded": report.steps - report.dropped,
            "steps_dropped": report.dropped,
            "episodes": report.episodes,
            "swaps": report.swaps,
        }
        if report.last_return is not None:
            counters["return_last"] = report.last_return
        view.count(counters, sent)


def actors_of(settings: SimActorSettings) -> Sequence[SimActorSettings]:
    """Give each of the actors a folder and draws of its own; all record under one robot."""
    return [
        settings.model_copy(
            update={
                "actors": 1,
                "engine": "process",
                "live": settings.live and number == 0,  # they have one name
                "folder": settings.home / f"{number:04d}",
                "seed": int(np.random.SeedSequence((settings.seed, number)).generate_state(1)[0]),
                "prefill": -(-settings.prefill // settings.actors),
            }
        )
        for number in range(settings.actors)
    ]

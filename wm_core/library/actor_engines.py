"""Starts actors in simulation: one here, several in processes, or many on a Ray cluster."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

from wm_core.contract.errors import SettingsError, WmError
from wm_core.contract.extras import install_extras
from wm_core.contract.files import read_json
from wm_core.library.sim_actor import (
    ACTOR_STATUS,
    REPORT_S,
    SimActor,
    SimActorReport,
    SimActorSettings,
    actors_of,
)

log = logging.getLogger(__name__)

FIRST_WAIT_S = 1.0  #: before an actor that died is started anew; twice as long at every death ...
MOST_WAIT_S = 60.0  #: ... up to this
STOP_S = 90.0  #: seconds in which actors may upload what they have
WRONG_SETTINGS = 2  #: exit status of an actor that would fail again
_SPAWN = multiprocessing.get_context("spawn")
OnReport = Callable[[SimActorReport], None]


def play_actors(
    settings: SimActorSettings,
    stop: threading.Event,
    *,
    on_report: OnReport = lambda report: None,
) -> SimActorReport:
    """Play until all actors are done or ``stop`` is set; returns how far they came together.

    Raises:
        SettingsError: for settings that do not fit the trainer, or Ray where it is not installed.
        EnvFault: where the environment cannot go on.
    """
    if settings.engine == "ray":
        return _on_ray(settings, stop, on_report)
    if settings.actors == 1:
        return SimActor(settings, stop, on_report=on_report).play()
    return _in_processes(settings, stop, on_report)


def joined_reports(reports: Sequence[SimActorReport]) -> SimActorReport:
    """Add up what several actors report."""
    if not reports:
        return SimActorReport("waiting", 0, 0, None, -1, 0, 0, 0, 0, 0, "")
    returns = [r.last_return for r in reports if r.last_return is not None]
    phases = {r.phase for r in reports}
    return SimActorReport(
        phase=phases.pop() if len(phases) == 1 else "acting",
        steps=sum(r.steps for r in reports),
        episodes=sum(r.episodes for r in reports),
        last_return=sum(returns) / len(returns) if returns else None,
        version=min(r.version for r in reports),
        swaps=sum(r.swaps for r in reports),
        chunks_acked=sum(r.chunks_acked for r in reports),
        chunks_pending=sum(r.chunks_pending for r in reports),
        dropped=sum(r.dropped for r in reports),
        env_restarts=sum(r.env_restarts for r in reports),
        problem=next((r.problem for r in reports if r.problem), ""),
    )


# ---------------------------------------------------------------------- processes


class _Actor:
    """One actor's process, started anew when it dies."""

    def __init__(self, settings: SimActorSettings) -> None:
        self.settings, self._deaths, self._again_s = settings, 0, 0.0
        self._process: Any = None
        self.is_done = False

    def tend(self) -> None:
        """Start the process where there is none; raise where another would do no better."""
        if self.is_done:
            return
        if self._process is None:
            if time.monotonic() >= self._again_s:
                text = self.settings.model_dump_json()
                self._process = _SPAWN.Process(target=_play_in_process, args=(text, os.getpid()))
                self._process.start()
            return
        code = self._process.exitcode
        if code is None:
            return
        self._process = None
        self.is_done = code == 0
        if code == WRONG_SETTINGS:
            raise SettingsError(f"the actor in {self.settings.home} ended; its reason is above")
        if code:
            wait_s = min(MOST_WAIT_S, FIRST_WAIT_S * 2**self._deaths)
            self._deaths += 1
            log.warning("an actor ended with %s; another one begins in %g s", code, wait_s)
            self._again_s = time.monotonic() + wait_s

    def end(self, until_s: float) -> None:
        """Ask it to end, and make it end by ``until_s`` of the steady clock."""
        if self._process is not None:
            self._process.terminate()
            self._process.join(max(0.0, until_s - time.monotonic()))
            self._process.kill()
            self._process.join()


def _in_processes(
    settings: SimActorSettings, stop: threading.Event, on_report: OnReport
) -> SimActorReport:
    actors = [_Actor(one) for one in actors_of(settings)]
    try:
        while not stop.is_set() and not all(actor.is_done for actor in actors):
            for actor in actors:
                actor.tend()
            on_report(joined_reports([*_reports(actors)]))
            stop.wait(REPORT_S)
    finally:
        until_s = time.monotonic() + STOP_S
        for actor in actors:
            actor.end(until_s)
    return joined_reports([*_reports(actors)])


def _reports(actors: Sequence[_Actor]) -> Sequence[SimActorReport]:
    names = {field.name for field in fields(SimActorReport)}
    told = (read_json(actor.settings.home / ACTOR_STATUS) for actor in actors)
    return [SimActorReport(**report) for report in told if report.keys() == names]


def _play_in_process(text: str, parent: int) -> None:
    """Play one actor until it is told to end, or until ``parent`` is gone."""
    stop = threading.Event()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent, which ends this
    signal.signal(signal.SIGTERM, lambda *_: stop.set())

    def watch() -> None:
        while os.getppid() == parent and not stop.wait(REPORT_S):
            pass
        stop.set()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
    try:
        SimActor(SimActorSettings.model_validate_json(text), stop).play()
    except WmError as error:
        sys.stderr.write(f"wm sim-actor: {error}\n")
        sys.exit(WRONG_SETTINGS if isinstance(error, SettingsError) else 1)


# ---------------------------------------------------------------------- ray


def _on_ray(
    settings: SimActorSettings, stop: threading.Event, on_report: OnReport
) -> SimActorReport:
    try:
        import ray
    except ModuleNotFoundError as error:
        raise SettingsError(
            "--engine ray: Ray is not installed here and on every node it has to be; "
            f"{install_extras('ray')}, or leave --engine out"
        ) from error
    ray.init(address=settings.ray_address or None, log_to_driver=False, include_dashboard=False)
    try:
        play = ray.remote(num_cpus=1, max_retries=-1)(_play_remotely)
        waiting = [play.remote(one.model_dump_json()) for one in actors_of(settings)]
        done: list[SimActorReport] = []
        try:
            while waiting and not stop.is_set():
                ready, waiting = ray.wait(waiting, timeout=REPORT_S)
                done += [SimActorReport(**report) for report in ray.get(ready)]
                on_report(joined_reports(done))
        finally:
            for reference in waiting:
                ray.cancel(reference)  # as Ctrl-C: it uploads what it has
            ray.wait(waiting, num_returns=len(waiting), timeout=STOP_S) if waiting else None
        return joined_reports(done)
    finally:
        ray.shutdown()


def _play_remotely(text: str) -> dict[str, Any]:
    """Play one actor on a node of the cluster; returns its report as a dictionary."""
    from dataclasses import asdict

    return asdict(SimActor(SimActorSettings.model_validate_json(text), threading.Event()).play())

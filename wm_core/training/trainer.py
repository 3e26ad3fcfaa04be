"""The loop around a learner: collects, updates, publishes and reports until the goal is reached.

One loop serves three ways of training.  They differ only in the ``ExperienceSource``: environments
of this process, a store that robots fill, or a finished store.  Updates are allowed while

    updates x B x T  <=  replay ratio x agent steps in the store

so a learner that is too slow for its data stays below the ratio, and no source waits for it.  Only
steps that are durable in the store count, and a policy is published only when its checkpoint is
durable too (where writing one is cheap), so that no counter that was read goes back after a kill.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.config import Config
from wm_core.contract.errors import EnvFault
from wm_core.contract.files import remove_unfinished
from wm_core.contract.spec import Spec
from wm_core.replay.ratio import ReplayRatio
from wm_core.store.reader import Store
from wm_core.training.best import Evaluations, updates_of_world_alone
from wm_core.training.checkpoint import CheckpointWriter, path_of
from wm_core.training.diverged import TrainingDiverged, check_finite
from wm_core.training.hooks import Hooks
from wm_core.training.learner import Learner
from wm_core.training.metrics import MetricLog
from wm_core.training.publisher import Publisher
from wm_core.training.schedule import CpuTime, Every
from wm_core.training.seeding import Streams
from wm_core.training.shown import Shown
from wm_core.training.sources import ExperienceSource
from wm_core.training.status import NAME as STATUS_NAME
from wm_core.training.status import Rate, Status
from wm_core.training.team import WorkersFailed
from wm_core.training.unwritten import Home, Unwritten
from wm_core.training.waiting import RunWaiting

STATUS_S = 1.0  #: seconds between two status reports


class Trainer:
    """Trains until the goal is reached or ``stop`` is set, and leaves a checkpoint.

    Args:
        run: the run folder.
        config: settings of the whole run.
        spec: observations and actions.
        task: recorded in checkpoints; may be empty.
        store: what the learner's sampler draws from; closed when the training ends.
        learner: agent and replay.
        streams: every generator of the run, for the checkpoints.
        source: brings in steps.
        stop: ends the training between two updates when it is set.
        hooks: functions that are called beside learning; None calls none.
    """

    def __init__(
        self,
        run: Path,
        config: Config,
        spec: Spec,
        task: str,
        *,
        store: Store,
        learner: Learner,
        streams: Streams,
        source: ExperienceSource,
        stop: threading.Event,
        hooks: Hooks | None = None,
    ) -> None:
        self.run_folder, self._config, self._spec, self._task = run, config, spec, task
        self._store, self.learner, self._streams, self._source = store, learner, streams, source
        self._stop, self._hooks, train = stop, hooks or Hooks(), config.train
        self._ratio = ReplayRatio(
            train.replay_ratio,
            config.replay.batch * config.replay.length,
            prefill=0 if source.over else min(train.prefill, source.steps_goal or train.prefill),
            burst=None if source.over else train.burst,
        )
        source.pace(self._ratio)
        self._checkpoints = CheckpointWriter(
            run, keep=train.keep_checkpoints, every_s=train.checkpoint_every_s
        )
        untrained = updates_of_world_alone(config)
        self._publisher = Publisher(self._hooks.publish, train.publish_every, untrained=untrained)
        self._evaluations = Evaluations(
            run, self._hooks.evaluate, every=train.eval_every, episodes=train.eval_episodes,
            untrained=untrained,
        )  # fmt: skip
        self._cpu = CpuTime(train.minutes and 60.0 * train.minutes, beside=source.cpu_s)
        self._waiting = RunWaiting.of(config, store, learner.sampler, collects=source.collects)
        self._episodes = self._env_restarts = 0  # of the processes before this one
        self._last_return: float | None = None
        self._last_metrics: dict[str, float] = {}
        self._update_rate, self._step_rate, self._is_over = Rate(), Rate(), False
        self._report, self._unwritten, self._shown = Every(STATUS_S), Unwritten(), Shown()
        self._log: MetricLog  # opened by ``train``, as is ``_home``

    def state(self) -> dict[str, Any]:
        """Everything that a checkpoint holds."""
        limit = self._config.train.checkpoint_latents_bytes
        return {
            "config": self._config.model_dump(mode="json"),
            "spec": self._spec.model_dump(mode="json"),
            "task": self._task,
            "learner": self.learner.state(max_latent_bytes=limit),
            "streams": self._streams.state(),
            "agent_steps": self._store.steps,
            "published_version": self._publisher.version,
            "published_updates": self._publisher.updates,
            "episodes": self._episodes,
            "env_restarts": self._env_restarts + self._source.env_restarts,
            "cpu_s": self._cpu.seconds(),
            **self._evaluations.state(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.learner.load_state(state["learner"])
        self._ratio.did(self.learner.updates)
        self._streams.load_state(state["streams"])
        self._publisher.resume(int(state["published_version"]), int(state["published_updates"]))
        self._evaluations.load_state(state)
        self._episodes = int(state["episodes"])
        self._env_restarts = int(state.get("env_restarts", 0))
        self._cpu.add(float(state.get("cpu_s", 0.0)))
        self._checkpoints.resume(self.learner.updates, int(state["agent_steps"]))

    def continue_from(self, version: int, updates: int) -> None:
        """Publish above ``version``, which an earlier process made after ``updates``.

        A resumed run publishes nothing before it has passed ``updates``, so that robots never
        get an older policy under a higher version; a fresh run counts anew.
        """
        if version > self._publisher.version:
            fresh, so_far = self._checkpoints.updates is None, self._publisher.updates
            self._publisher.resume(version, so_far if fresh else max(updates, so_far))

    def train(self) -> Status:
        """Run to the goal or until stopped; returns the last status.

        Raises:
            TrainingDiverged: when a loss or a weight is no longer a finite number.
            StoreError: when there has been nothing to learn from for a long time.
            PolicyRefused: when the first or the last policy answers otherwise than its network.
            WorkersFailed: when another worker is lost.
            DiskFailed: when neither checkpoint nor steps can be written, or the folder is gone.
        """
        resumed, updates_before = self._checkpoints.updates is not None, self.learner.updates
        self._open_log(updates_before if resumed else None)
        self._go_on_from(Shown.of(self.run_folder))
        try:
            remove_unfinished(self.run_folder, STATUS_NAME)
            self._status("starting")
            if not resumed:
                self._save()
            if not (resumed and self._publisher.version >= 0) and not self._stop.is_set():
                self._publish()
            if self._evaluations.is_best(updates_before):  # it may have been killed meanwhile
                self._keep_best()
            try:
                self._loop()
                self._source.settle()
            except (EnvFault, WorkersFailed):  # what was learnt is kept
                self._finish(updates_before)
                raise
            self._evaluate_if_due(at_end=True)
            self._finish(updates_before)
        except Exception as error:
            self._home.check()  # a store without its folder is only a part of what is gone
            self._status("diverged" if isinstance(error, TrainingDiverged) else "failed")
            raise
        finally:
            with self._unwritten.allowed("metrics"):
                self._log.close()
            self.learner.close()
            self._store.close()
            self._source.close()  # last: who writes folds the ledger's log once nobody reads it
        return self._status("done" if self._reached_goal() or self._is_over else "stopped")

    def _go_on_from(self, shown: Shown) -> None:
        """Let no counter fall below what an earlier process of this run has shown."""
        self._shown, self._home = shown, Home(self.run_folder)
        self._episodes = max(self._episodes, shown.episodes)
        self._cpu.add(max(0.0, shown.cpu_s - self._cpu.seconds()))

    def _open_log(self, resume_at: int | None) -> None:
        place = None if resume_at is None else (resume_at, self._checkpoints.agent_steps)
        loggers = self._hooks.loggers and self._hooks.loggers(place)
        self._log = MetricLog(self.run_folder, loggers, resume_at=resume_at)

    def _loop(self) -> None:
        while not (self._stop.is_set() or self._is_over or self._reached_goal()):
            if self._may_update():
                self._log.add(self.learner.update())
                self._cpu.add(self.learner.take_cpu_s())
                self._ratio.did()
                self._waiting.ended()
                self._after_update()
                if self._source.poll(self._publisher.version):
                    self._after_collection()
            elif not self._source.more(self._publisher.version):
                if not self.learner.sampler.can_sample():
                    raise self._waiting.refuse()
                self._is_over = True
            else:
                self._after_collection()
            if self._report.due(time.monotonic()):
                self._report.done(time.monotonic())
                self._waiting.warn()
                self._status(self._phase())

    def _reached_goal(self) -> bool:
        goal = self._config.train.updates
        return self._cpu.used_up or (goal is not None and self.learner.updates >= goal)

    def _may_update(self) -> bool:
        # A finished store gets the updates that were asked for, whatever ratio they come to.
        asked = self._source.over and self._config.train.updates is not None
        due = asked or self._ratio.due(self._store.steps) > 0
        return due and self.learner.sampler.can_sample()

    def _phase(self) -> str:
        idle = "collecting" if self._source.collects else "waiting"
        return "training" if self._may_update() else idle

    def _after_update(self) -> None:
        updates, train = self.learner.updates, self._config.train
        if updates % train.log_every == 0:
            self._write_metrics()
        if self._publisher.due(updates):
            self._publish()
        if train.video_every and updates % train.video_every == 0:
            self._write_video()
        if self._checkpoints.due():
            self._save()
        self._evaluate_if_due()

    def _after_collection(self) -> None:
        self._waiting.check()
        if not self._source.collects:
            self._waiting.check_time(time.monotonic())
        ended = self._source.episodes()
        if ended:
            self._episodes += len(ended)
            self._last_return = ended[-1].total
            self._write_metrics(
                {
                    "episode/return": float(np.mean([e.total for e in ended])),
                    "episode/length": float(np.mean([e.length for e in ended])),
                }
            )
        self._evaluate_if_due()

    def _evaluate_if_due(self, *, at_end: bool = False) -> None:
        updates, steps = self.learner.updates, self._store.steps
        if self._source.over:  # in as many updates as so many collected steps allow
            batch_steps = self._config.replay.batch * self._config.replay.length
            steps = int(updates * batch_steps / self._config.train.replay_ratio)
        # What was learnt last is evaluated even where the run's minutes are used up.
        must_end = self._stop.is_set if at_end else self._must_end
        if must_end() or not self._evaluations.due(steps, updates, at_end=at_end):
            return

        def stop() -> bool:
            self._report_evaluating()
            return must_end()

        found = self._evaluations.take(steps, updates, self._store.steps, stop)
        if found:
            self._write_metrics(found)
            if self._evaluations.is_best(updates):
                self._save()
                self._keep_best()

    def _report_evaluating(self) -> None:
        if self._report.due(time.monotonic()):
            self._report.done(time.monotonic())
            self._status("evaluating")

    def _must_end(self) -> bool:
        return self._stop.is_set() or self._cpu.used_up

    def _keep_best(self) -> None:
        """Keep the present checkpoint and policy as the best, whether or not that was done."""
        updates = self.learner.updates
        with self._unwritten.allowed("best"):
            self._evaluations.keep(path_of(self.run_folder, updates))
            if self._publisher.is_on and self._hooks.keep_best is not None:
                if self._publisher.updates < updates:
                    self._publisher.publish(updates, self._store.steps)
                self._hooks.keep_best(updates)

    def _finish(self, updates_before: int) -> None:
        """Write what is not written yet; this process began at ``updates_before``."""
        self._waiting.warn()
        updates, every = self.learner.updates, self._config.train.video_every
        learned = updates > (self._checkpoints.updates or 0)
        # A run that was stopped before its first update has collected: episodes, CPU time.
        if learned or self._store.steps > self._checkpoints.agent_steps:
            self._save()
        if self._publisher.due_at_end(updates):
            self._publish(last=True)
        if every and updates > updates_before and updates % every:
            self._write_video()

    def _write_metrics(self, extra: Mapping[str, float] | None = None) -> None:
        means = self._log.means()
        self._check_finite(means)
        self._last_metrics = means or self._last_metrics
        counters = {
            "updates": self.learner.updates,
            "agent_steps": self._store.steps,
            "episodes": self._episodes,
            "published_version": self._publisher.version,
            "cpu_s": round(self._cpu.seconds(), 2),
        }
        more = {"replay_ratio": self._ratio.actual(self._store.steps)}
        more |= {f"invalid/{k}": n for k, n in self._store.invalid.by_reason.items()}
        with self._unwritten.allowed("metrics"):
            self._log.write(counters, more | dict(extra or {}))

    def _check_finite(self, means: Mapping[str, float], *, weights: bool = False) -> None:
        sound = not weights or self.learner.is_finite()
        check_finite(means, weights=sound, updates=self.learner.updates, run=self.run_folder)

    def _save(self) -> None:
        """Write a checkpoint, unless the agent is broken already."""
        self._check_finite(self._log.means(), weights=True)
        self._home.check()
        self._checkpoints.save(
            self.state(), updates=self.learner.updates, agent_steps=self._store.steps
        )

    def _publish(self, *, last: bool = False) -> None:
        if not self._publisher.is_on:
            return
        if self._checkpoints.is_cheap():
            self._save()
        else:
            self._check_finite({}, weights=True)
        with self._unwritten.allowed("policies"):
            self._publisher.publish(self.learner.updates, self._store.steps, last=last)

    def _write_video(self) -> None:
        if self._hooks.video is not None and self.learner.sampler.can_sample():
            frames, fps = self._hooks.video().frames(), 1.0 / self._spec.period_s
            places = {"updates": self.learner.updates, "agent_steps": self._store.steps}
            with self._unwritten.allowed("videos"):
                self._log.video("imagined", frames, **places, fps=fps)

    def _status(self, phase: str) -> Status:
        now_s, steps, updates = time.monotonic(), self._store.steps, self.learner.updates
        status = Status(
            phase=phase,
            updates=max(updates, self._shown.updates),
            updates_redone=max(0, self._shown.updates - updates),
            updates_goal=self._updates_goal(),
            updates_per_s=round(self._update_rate.at(now_s, updates), 3),
            agent_steps=steps,
            agent_steps_goal=self._source.steps_goal,
            agent_steps_per_s=round(self._step_rate.at(now_s, steps), 3),
            published_version=self._publisher.version,
            episodes=self._episodes,
            last_return=self._last_return,
            time=round(time.time(), 3),
            metrics=self._last_metrics,
            cpu_s=round(self._cpu.seconds(), 2),
            cpu_s_goal=self._cpu.goal_s,
            left_out=dict(self._store.left_out),
            invalid_steps=dict(self._store.invalid.by_reason),
            env_restarts=self._env_restarts + self._source.env_restarts,
            waiting_for=self._waiting.sentence(now_s) if phase == "waiting" else "",
            evaluation=self._evaluations.status,
            unwritten=dict(self._unwritten.counts),
            collectors=self._source.standing(),
        )
        self._home.check()
        if self._hooks.prune is not None:
            with self._unwritten.allowed("evictions"):
                self._hooks.prune()
        with self._unwritten.allowed("status"):
            status.write(self.run_folder)
        if self._hooks.status is not None:
            self._hooks.status(status)
        return status

    def _updates_goal(self) -> int | None:
        if self._config.train.updates is not None:
            return self._config.train.updates
        steps = self._store.steps if self._source.over else self._source.steps_goal
        return None if steps is None else self.learner.updates + self._ratio.due(steps)

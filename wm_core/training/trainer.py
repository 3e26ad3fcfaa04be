"""The loop around a learner: more data, more updates, and everything that a person wants to see.

One loop serves three ways of training.  They differ only in their ``Source``: environments of this
process, a store that robots fill, or a finished store.  Updates are allowed while

    updates x B x T  <=  replay ratio x agent steps in the store

so a learner that is too slow for its data simply stays below the ratio, and nobody ever waits for
it.  Only what is durable in the store counts as an agent step, and a policy is published only
when the checkpoint of its weights is durable too (as long as writing one is cheap), so that after
a kill no counter that anybody has seen goes back.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.config import Config
from wm_core.contract.errors import StoreError, WmError
from wm_core.contract.spec import Spec
from wm_core.replay.ratio import ReplayRatio
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.learner import Learner
from wm_core.training.metrics import MetricLog
from wm_core.training.rollout_video import RolloutVideo
from wm_core.training.seeding import Streams
from wm_core.training.sources import Source
from wm_core.training.status import Rate, Status

FIRST_PUBLISH = 50  #: updates before the first trained policy, and at least between any two
STATUS_S = 1.0  #: between two looks at the progress
CHECKPOINT_SHARE = 0.05  #: of the time may go into checkpoints before publishing


class TrainingDiverged(WmError):
    """A loss or a weight that is no longer a number."""


@dataclass(frozen=True)
class Publication:
    """A policy that is due: what ``on_publish`` is told."""

    agent: Any
    version: int
    parent: int  #: the version before it; -1 for none
    updates: int
    agent_steps: int


class Trainer:
    """Trains until the goal is reached or ``stop`` is called, and leaves a checkpoint.

    Args:
        run: the run folder.
        config: of the whole run.
        spec: of observations and actions.
        task: recorded in checkpoints; may be empty.
        store: what the learner's sampler draws from; closed when the training ends.
        learner: agent and replay.
        streams: every generator of the run, for the checkpoints.
        source: brings in steps.
        stop: ends the training between two updates when it is set.
        on_publish: writes a policy out; None publishes nothing.
        on_status: told about the progress about once a second.
        video: real beside imagined frames; None shows none.
        evaluate: returns numbers for the log, in sim; None evaluates nothing.
        prune: keeps the store within its size; called now and then.
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
        source: Source,
        stop: threading.Event,
        on_publish: Callable[[Publication], None] | None = None,
        on_status: Callable[[Status], None] | None = None,
        video: Callable[[], RolloutVideo] | None = None,
        evaluate: Callable[[], Mapping[str, float]] | None = None,
        prune: Callable[[], None] | None = None,
    ) -> None:
        self.run_folder, self._config, self._spec, self._task = run, config, spec, task
        self._store, self.learner, self._streams, self._source = store, learner, streams, source
        self._stop, self._on_publish, self._on_status = stop, on_publish, on_status
        self._video, self._evaluate, self._prune = video, evaluate, prune
        self._ratio = ReplayRatio(
            config.train.replay_ratio,
            config.replay.batch * config.replay.length,
            prefill=0 if source.over else config.train.prefill,
        )
        self.published_version = -1
        self._published_updates = 0
        self._evaluated_steps = 0
        self._episodes = 0
        self._last_return: float | None = None
        self._last_metrics: dict[str, float] = {}
        self._update_rate, self._step_rate = Rate(), Rate()
        self._checkpointed_s, self._checkpoint_cost_s = time.monotonic(), 0.0
        self._checkpointed_updates, self._checkpointed_steps = -1, 0
        self._cpu_begun_s = time.process_time()  # less what earlier processes of this run used
        self._status_s = 0.0
        self._log: MetricLog | None = None

    # ------------------------------------------------------------------ resume

    def state(self) -> dict[str, Any]:
        """Everything a checkpoint holds."""
        limit = self._config.train.checkpoint_latents_bytes
        return {
            "config": self._config.model_dump(mode="json"),
            "spec": self._spec.model_dump(mode="json"),
            "task": self._task,
            "learner": self.learner.state(max_latent_bytes=limit),
            "streams": self._streams.state(),
            "agent_steps": self._store.steps,
            "published_version": self.published_version,
            "published_updates": self._published_updates,
            "evaluated_steps": self._evaluated_steps,
            "episodes": self._episodes,
            "cpu_s": self._cpu_s(),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on where a checkpoint was made."""
        self.learner.load_state(state["learner"])
        self._ratio.did(self.learner.updates)
        self._streams.load_state(state["streams"])
        self.published_version = int(state["published_version"])
        self._published_updates = int(state["published_updates"])
        self._evaluated_steps = int(state["evaluated_steps"])
        self._episodes = int(state["episodes"])
        self._cpu_begun_s -= float(state.get("cpu_s", 0.0))
        self._checkpointed_updates = self.learner.updates
        self._checkpointed_steps = int(state["agent_steps"])

    def continue_from(self, version: int, updates: int) -> None:
        """Publish above ``version``, which an earlier process made after ``updates``.

        A resumed run publishes nothing before it has passed ``updates``, so that what robots are
        told never goes back; a fresh one begins to count anew.
        """
        if version > self.published_version:
            self.published_version = version
            if self._checkpointed_updates >= 0:
                self._published_updates = max(updates, self._published_updates)

    # ------------------------------------------------------------------ the loop

    def train(self) -> Status:
        """Run to the goal or until stopped; returns how far it came.

        Raises:
            TrainingDiverged: when a loss or a weight is no longer a number.
            StoreError: when a finished store holds nothing to learn from.
        """
        resumed, begun = self._checkpointed_updates >= 0, self.learner.updates
        self._log = MetricLog(self.run_folder, resume_at=self.learner.updates if resumed else None)
        try:
            self._status("starting")
            if not resumed:
                self._save()
            if not (resumed and self.published_version >= 0) and not self._stop.is_set():
                self._publish()
            self._loop()
            self._finish(begun)
        except TrainingDiverged:
            self._status("diverged")
            raise
        finally:
            self._log.close()
            self._source.close()
            self._store.close()
        return self._status("done")

    def _loop(self) -> None:
        while not self._stop.is_set() and not self._reached():
            if self._may_update():
                metrics = self.learner.update()
                self._ratio.did()
                assert self._log is not None
                self._log.add(metrics)
                self._after_update()
                self._source.poll()
            elif not self._source.more(self.published_version):
                self._check_not_empty()
                break
            else:
                self._after_collection()
            self._now_and_then()

    def _reached(self) -> bool:
        goal, goal_s = self._config.train.updates, self._cpu_goal_s()
        if goal_s is not None and self._cpu_s() >= goal_s:
            return True
        return goal is not None and self.learner.updates >= goal

    def _cpu_s(self) -> float:
        """CPU time of this run: learning, collecting, evaluating, before a resume too."""
        return time.process_time() - self._cpu_begun_s

    def _cpu_goal_s(self) -> float | None:
        minutes = self._config.train.minutes
        return None if minutes is None else 60.0 * minutes

    def _may_update(self) -> bool:
        # Offline, updates that were asked for are done, whatever ratio that comes to.
        asked = self._source.over and self._config.train.updates is not None
        due = asked or self._ratio.due(self._store.steps) > 0
        return due and self.learner.sampler.can_sample()

    def _check_not_empty(self) -> None:
        if not self.learner.sampler.can_sample():
            raise StoreError(
                f"nothing to learn from: the store holds {self._store.steps} steps, expected "
                f"at least one run of {self._config.replay.length} without a gap"
            )

    # ------------------------------------------------------------------ what follows an update

    def _after_update(self) -> None:
        updates, train = self.learner.updates, self._config.train
        if updates % train.log_every == 0:
            self._write_metrics()
        since = updates - self._published_updates
        due = FIRST_PUBLISH if self._published_updates == 0 else train.publish_every
        if self._on_publish is not None and since >= due:
            self._publish()
        if train.video_every and updates % train.video_every == 0:
            self._show()
        if time.monotonic() - self._checkpointed_s > train.checkpoint_every_s:
            self._save()

    def _after_collection(self) -> None:
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
        if self._evaluate is not None and self._evaluation_due():
            self._evaluated_steps = self._store.steps
            self._write_metrics(self._evaluate())

    def _evaluation_due(self) -> bool:
        every = self._config.train.eval_every
        since = self._store.steps - self._evaluated_steps
        return bool(every) and since >= every and self.learner.updates > 0

    def _now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s - self._status_s >= STATUS_S:
            self._status_s = now_s
            self._status("training" if self._may_update() else "waiting")

    def _finish(self, begun: int) -> None:
        """Leave everything as it stands now; ``begun``: updates when this process began."""
        learned = self.learner.updates > self._checkpointed_updates
        # A run that was stopped before its first update has collected: episodes, CPU time.
        if learned or self._store.steps > self._checkpointed_steps:
            self._save()
        if self.learner.updates - self._published_updates >= FIRST_PUBLISH:
            self._publish()
        every = self._config.train.video_every
        if every and self.learner.updates > begun and self.learner.updates % every:
            self._show()

    # ------------------------------------------------------------------ what is written

    def _counters(self) -> dict[str, float]:
        return {
            "updates": self.learner.updates,
            "agent_steps": self._store.steps,
            "episodes": self._episodes,
            "published_version": self.published_version,
            "cpu_s": round(self._cpu_s(), 2),
        }

    def _write_metrics(self, extra: Mapping[str, float] | None = None) -> None:
        assert self._log is not None
        means = self._log.means()
        self._check_losses(means)
        if means:
            self._last_metrics = means
        ratio = {"replay_ratio": self._ratio.actual(self._store.steps)}
        self._log.write(self._counters(), ratio | dict(extra or {}))

    def _check_losses(self, means: Mapping[str, float]) -> None:
        bad = sorted(k for k, v in means.items() if not math.isfinite(v))
        if bad:
            self._diverged(f"{', '.join(bad)} ceased to be finite")

    def _diverged(self, what: str) -> None:
        good = checkpoint.listed(self.run_folder)
        last = good[-1] if good else None
        raise TrainingDiverged(
            f"{what} at update {self.learner.updates}; last good state: {last}. Go on from it "
            "with --resume and a lower --optim.lr, or look for odd data with `wm info`"
        )

    def _save(self) -> Path:
        """Write a checkpoint, unless the agent is broken already."""
        if self._log is not None:
            self._check_losses(self._log.means())
        if not self.learner.is_finite():
            self._diverged("a weight ceased to be finite")
        if self._prune is not None:
            self._prune()
        begin_s = time.monotonic()
        path = checkpoint.save(
            self.run_folder,
            self.state(),
            updates=self.learner.updates,
            keep=self._config.train.keep_checkpoints,
        )
        self._checkpointed_s = time.monotonic()
        self._checkpoint_cost_s = self._checkpointed_s - begin_s
        self._checkpointed_updates = self.learner.updates
        self._checkpointed_steps = self._store.steps
        return path

    def _publish(self) -> None:
        if self._on_publish is None:
            return
        version, updates = self.published_version + 1, self.learner.updates
        passed_s = time.monotonic() - self._checkpointed_s
        if self._checkpoint_cost_s <= CHECKPOINT_SHARE * passed_s:
            self._save()
        elif not self.learner.is_finite():
            self._diverged("a weight ceased to be finite")
        self._on_publish(
            Publication(
                agent=self.learner.agent,
                version=version,
                parent=version - 1,
                updates=updates,
                agent_steps=self._store.steps,
            )
        )
        self.published_version, self._published_updates = version, updates

    def _show(self) -> None:
        if self._video is None or not self.learner.sampler.can_sample():
            return
        assert self._log is not None
        fps = 1.0 / self._spec.period_s
        self._log.video("imagined", self._video().frames(), updates=self.learner.updates, fps=fps)

    def _status(self, phase: str) -> Status:
        now_s, steps, updates = time.monotonic(), self._store.steps, self.learner.updates
        status = Status(
            phase=phase,
            updates=updates,
            updates_goal=self._updates_goal(),
            updates_per_s=round(self._update_rate.at(now_s, updates), 3),
            agent_steps=steps,
            agent_steps_goal=self._source.steps_goal,
            agent_steps_per_s=round(self._step_rate.at(now_s, steps), 3),
            published_version=self.published_version,
            episodes=self._episodes,
            last_return=self._last_return,
            time=round(time.time(), 3),
            metrics=self._last_metrics,
            cpu_s=round(self._cpu_s(), 2),
            cpu_s_goal=self._cpu_goal_s(),
        )
        status.write(self.run_folder)
        if self._on_status is not None:
            self._on_status(status)
        return status

    def _updates_goal(self) -> int | None:
        if self._config.train.updates is not None:
            return self._config.train.updates
        steps = self._store.steps if self._source.over else self._source.steps_goal
        return None if steps is None else self.learner.updates + self._ratio.due(steps)

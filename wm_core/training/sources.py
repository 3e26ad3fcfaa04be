"""Where new experience comes from: environments of this process, robots, or a finished store.

Collectors in processes of their own are in ``training.collectors``.

The trainer asks a source for more when its replay ratio allows no further update.  No source ever
waits for the learner.
"""

from __future__ import annotations

import threading
import time

from wm_core.replay.ratio import ReplayRatio
from wm_core.store.ledger import Ledger
from wm_core.store.reader import Store
from wm_core.training.collect import Collector, EnvActor, EpisodeResult

POLL_S = 0.2  #: seconds to wait for robots before looking again
REFRESH_S = 1.0  #: seconds after which a busy learner looks for new experience


class ExperienceSource:
    """Brings new steps into the store; this base class brings none."""

    over = False  #: whether the store will never hold more than it does
    steps_goal: int | None = None  #: steps that there will be in the end; None where unknown
    collects = False  #: whether it makes the steps itself, rather than wait for others to

    @property
    def env_restarts(self) -> int:
        """Count the environments of this process that were made anew after a fault."""
        return 0

    def more(self, version: int) -> bool:
        """Bring in steps or wait a little for them; False when there will never be more.

        Args:
            version: of the newest published policy.
        """
        return False

    def pace(self, ratio: ReplayRatio) -> None:
        """Take note of the ratio, which counts the updates, before the first step is asked for."""

    def poll(self, version: int) -> bool:
        """Take in what has arrived meanwhile, without waiting; whether it made steps itself.

        Args:
            version: of the newest published policy.
        """
        return False

    def episodes(self) -> list[EpisodeResult]:
        """Episodes that ended since the last call, as far as the source sees them end."""
        return []

    def cpu_s(self) -> float:
        """CPU seconds that it has used in other processes than this."""
        return 0.0

    def standing(self) -> dict[str, float | str]:
        """Say how far collectors beside the learner are, and who waits; empty without any."""
        return {}

    def settle(self) -> None:
        """Let steps that are under way arrive, and begin no more."""

    def close(self) -> None:
        """Release everything; a second call does nothing."""


class FinishedStore(ExperienceSource):
    """A store that is not written to any more."""

    over = True


class GrowingStore(ExperienceSource):
    """A store that robots fill through the service.

    Args:
        store: refreshed as chunks arrive.
        stop: ends the waiting.
    """

    def __init__(self, store: Store, stop: threading.Event) -> None:
        self._store, self._stop = store, stop
        self._refreshed_s = 0.0

    def more(self, version: int) -> bool:
        if not self._store.refresh():
            self._stop.wait(POLL_S)
        self._refreshed_s = time.monotonic()
        return True

    def poll(self, version: int) -> bool:
        now_s = time.monotonic()
        if now_s - self._refreshed_s > REFRESH_S:
            self._refreshed_s = now_s
            self._store.refresh()
        return False


class OwnEnvironments(ExperienceSource):
    """Environments of this process, which act for one chunk of steps at a time.

    Args:
        collector: acts and records.
        store: what the collector's recorders write to.
        explorer: acts until the store holds ``prefill`` steps.
        actor: acts from then on.
        prefill: agent steps of ``explorer``.
        steps: agent steps in the store at which the source ends.
        chunk: agent steps to take at a time, over all environments.
        ledger: that the recorders write to; closed with the source.
    """

    def __init__(
        self,
        collector: Collector,
        store: Store,
        *,
        explorer: EnvActor,
        actor: EnvActor,
        prefill: int,
        steps: int,
        chunk: int,
        ledger: Ledger | None = None,
    ) -> None:
        self._collector, self._store = collector, store
        self._explorer, self._actor = explorer, actor
        self._prefill, self._steps, self._chunk = prefill, steps, chunk
        self.steps_goal, self.collects, self._ledger = steps, True, ledger
        self._episodes: list[EpisodeResult] = []

    @property
    def env_restarts(self) -> int:
        return self._collector.restarts

    def more(self, version: int) -> bool:
        if self._store.steps >= self._steps:
            return False
        actor = self._actor if self._store.steps >= self._prefill else self._explorer
        if actor is self._actor:
            actor.version = version
        self._episodes += self._collector.collect(actor, self._chunk)
        self._collector.seal()
        self._store.refresh()
        return True

    def episodes(self) -> list[EpisodeResult]:
        ended, self._episodes = self._episodes, []
        return ended

    def close(self) -> None:
        try:
            self._collector.close()
        finally:
            if self._ledger is not None:
                self._ledger.close()

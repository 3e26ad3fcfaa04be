"""Where experience comes from: this process's own environments, robots, or nowhere any more.

The trainer asks a source for more when the data it has is used up as far as the replay ratio
allows, and never the other way round: no source waits for the learner.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol

from wm_core.store.reader import Store
from wm_core.training.collect import Collector, EnvActor, EpisodeResult

POLL_S = 0.2  #: how long to wait for robots before looking again
REFRESH_S = 1.0  #: how often a busy learner looks for new experience


class Source(Protocol):
    """What brings new steps into the store."""

    over: bool  #: there will never be more than there is

    @property
    def steps_goal(self) -> int | None:
        """How many steps there will be in the end; None where nobody knows."""
        ...

    def more(self, version: int) -> bool:
        """Bring in steps or wait a little for them; False when there will never be more.

        Args:
            version: of the newest published policy.
        """
        ...

    def poll(self) -> None:
        """Take notice of what has arrived meanwhile, without waiting."""
        ...

    def episodes(self) -> list[EpisodeResult]:
        """The episodes that ended since the last call, as far as the source sees them end."""
        ...

    def close(self) -> None:
        """Let go of everything; harmless when repeated."""
        ...


class FinishedStore:
    """A store that nobody writes to."""

    over = True
    steps_goal: int | None = None

    def more(self, version: int) -> bool:
        return False

    def poll(self) -> None:
        return

    def episodes(self) -> list[EpisodeResult]:
        return []

    def close(self) -> None:
        return


class GrowingStore:
    """A store that robots fill through the service.

    Args:
        store: refreshed as chunks arrive.
        stop: ends the waiting.
    """

    over = False
    steps_goal: int | None = None

    def __init__(self, store: Store, stop: threading.Event) -> None:
        self._store, self._stop = store, stop
        self._looked_s = 0.0

    def more(self, version: int) -> bool:
        if not self._store.refresh():
            self._stop.wait(POLL_S)
        self._looked_s = time.monotonic()
        return True

    def poll(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s > REFRESH_S:
            self._looked_s = now_s
            self._store.refresh()

    def episodes(self) -> list[EpisodeResult]:
        return []

    def close(self) -> None:
        return


class OwnEnvironments:
    """Environments of this process: act for one chunk, then learn from it.

    Args:
        collector: acts and records.
        store: what the collector's recorders write to.
        prefill: until the store holds so many steps, ``explorer`` acts.
        explorer: acts first.
        actor: acts then.
        steps: stop when the store has taken in so many.
        chunk: agent steps to take at a time, over all environments.
    """

    over = False
    steps_goal: int | None

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
    ) -> None:
        self._collector, self._store = collector, store
        self._explorer, self._actor = explorer, actor
        self._prefill, self._steps, self._chunk = prefill, steps, chunk
        self.steps_goal = steps
        self._episodes: list[EpisodeResult] = []

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

    def poll(self) -> None:
        return

    def episodes(self) -> list[EpisodeResult]:
        ended, self._episodes = self._episodes, []
        return ended

    def close(self) -> None:
        self._collector.close()

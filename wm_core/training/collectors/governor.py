"""Keeps collectors and learner to the replay ratio, and says which of them waits.

The learner may do so many updates as its steps allow (``replay.ratio``); the collectors may be so
far ahead of the learner as keeps both busy, and no farther.
"""

from __future__ import annotations

from collections import deque

from wm_core.replay.ratio import ReplayRatio

WINDOW_S = 20.0  #: over which it is said who waits
NOTABLE = 0.02  #: share of the time from which waiting is worth a word


class Governor:
    """Says how many more steps may be collected.

    Args:
        ratio: counts the updates; the trainer counts on it.
        chunk: agent steps of one order.
        collectors: how many there are.
        goal: steps in the store after which no more are collected.
    """

    def __init__(self, ratio: ReplayRatio, *, chunk: int, collectors: int, goal: int) -> None:
        self._ratio, self._goal = ratio, goal
        per_update = ratio.batch_steps / ratio.ratio
        self.lead = int(max(2 * chunk * collectors, 2 * per_update))  #: steps ahead of the learner

    def room(self, stored: int, ordered: int) -> int:
        """Count the steps that may be ordered beyond those ``stored`` and ``ordered`` already."""
        return min(self._ratio.used() + self.lead, self._goal) - stored - ordered


class Waits:
    """Measures the shares of the last seconds for which learner and collectors waited."""

    def __init__(self) -> None:
        self._marks: deque[tuple[float, float, float]] = deque()

    def at(self, now_s: float, learner_s: float, collectors_s: float) -> dict[str, float | str]:
        """Give both shares and who waits more, at ``now_s``.

        Args:
            now_s: of the steady clock.
            learner_s: that the learner has waited for steps in all.
            collectors_s: that the collectors have waited for orders in all, their mean.
        """
        self._marks.append((now_s, learner_s, collectors_s))
        while len(self._marks) > 2 and now_s - self._marks[1][0] > WINDOW_S:
            self._marks.popleft()
        first_s, learner, collectors = self._marks[0]
        passed_s = max(now_s - first_s, 1e-9)
        learner_share = min(1.0, (learner_s - learner) / passed_s)
        collectors_share = min(1.0, max(0.0, collectors_s - collectors) / passed_s)
        shares = {"learner": learner_share, "collectors": collectors_share}
        who = max(shares, key=lambda side: shares[side])
        return {
            "waits": who if shares[who] >= NOTABLE else "neither",
            "learner_waits": round(learner_share, 3),
            "collectors_wait": round(collectors_share, 3),
            "learner_waited_s": round(learner_s, 2),
            "collectors_waited_s": round(collectors_s, 2),
        }

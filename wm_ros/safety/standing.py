"""Says how the robot stands: whether its policy acts, and if not why, since when; no ROS.

What lasts is said, not what came first: while a node starts no frame has come yet, and a moment
later its stamps turn out to be wrong.  Nothing is throttled away: a reason that lasts a second is
said, said again every half minute, and its end is said too.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from wm_ros.safety.reasons import OK, WARN, reason_of
from wm_ros.timing.rhythm import NS, Window

LASTING_NS = NS  #: a reason that has lasted so long is said
AGAIN_NS = 30 * NS  #: and once more whenever so much time has passed
ACTS = "acts"  #: the word for a policy that acts


@dataclass(frozen=True, slots=True)
class Stand:
    """Describes how the robot stands at one moment."""

    word: str  #: ``acts``, or the reason why it does not (a row of ``REASONS``)
    level: int  #: ``OK`` only where the policy acts all the time
    text: str  #: one sentence for people
    since_s: float  #: seconds for which this is so


class Standing:
    """Follows the reasons of the ticks.

    Args:
        detail: gives what is known about a reason at this moment, such as ages and rates.
    """

    def __init__(self, detail: Callable[[str], str] = lambda word: "") -> None:
        self._detail = detail
        self.changed = False  #: the last tick stands otherwise than the one before
        self._ticks: deque[tuple[int, str]] = deque()  # of the last second: time, reason or acts
        self._word, self._since_ns = "inactive", 0  # what the newest ticks say
        self._said, self._said_ns = "", 0  # the lasting reason that was said, and when last
        self._stopped_ns = 0  # when the stop that was said began
        self._brief = Window(int(AGAIN_NS / NS))  # stops too short to be said, by reason
        self._brief_said_ns = -AGAIN_NS
        self._prompt: dict[str, int] = {}  # when each urgent sentence was said last
        self._ever = False  # the policy has acted

    def tick(self, reason: str | None, now_ns: int) -> list[tuple[int, str]]:
        """Note a tick and return what the log has to say: level and sentence.

        Args:
            reason: of the safe action; None where the policy acted.
            now_ns: steady time.
        """
        self._ticks.append((now_ns, reason or ACTS))
        while self._ticks[0][0] < now_ns - LASTING_NS:
            self._ticks.popleft()
        word = self._lasting()
        self.changed = word != self._word
        if self.changed:
            self._word, self._since_ns = word, now_ns
        said = [] if reason is None else self._urgent(reason, now_ns)
        return said + self._changes(reason, now_ns)

    def pause(self, word: str, now_ns: int) -> None:
        """Note that no ticks run, for the reason ``word``."""
        if word != self._word:
            self._word, self._since_ns, self._said = word, now_ns, ""
        self._ticks.clear()

    def stand(self, now_ns: int) -> Stand:
        """Judge the present: the reason that the last second names most often, or that it acts."""
        counts = Counter(word for _, word in self._ticks)
        since_s = (now_ns - self._since_ns) * 1e-9
        if not counts:
            return self._stand(self._word, since_s)
        acted = counts.pop(ACTS, 0)
        if not counts:
            return Stand(ACTS, OK, "", since_s)
        if acted and self._ticks[-1][1] == ACTS:
            word = counts.most_common(1)[0][0]
            row = reason_of(word)
            share = round(100 * acted / (acted + counts.total()))
            text = f"the policy acts on {share} % of ticks only: {row.text(self._detail(word))}"
            return Stand(word, WARN, text, since_s)
        return self._stand(self._lasting(), since_s)

    def _stand(self, word: str, since_s: float) -> Stand:
        row = reason_of(word)
        return Stand(word, row.level, f"{word}: {row.text(self._detail(word))}", since_s)

    def _lasting(self) -> str:
        """Name what the ticks since the policy acted last say most often, the newest of equals."""
        newest: Counter[str] = Counter()
        for _, word in reversed(self._ticks):
            if word == ACTS:
                break
            newest[word] += 1
        return newest.most_common(1)[0][0] if newest else ACTS

    def _urgent(self, reason: str, now_ns: int) -> list[tuple[int, str]]:
        """Say at once what is not to wait until it has lasted."""
        row = reason_of(reason)
        if not row.urgent:
            return []
        text = f"safe action: {reason}: {row.text(self._detail(reason))}"
        if text in self._prompt and now_ns - self._prompt[text] < AGAIN_NS:
            return []
        if len(self._prompt) > 100:
            self._prompt.clear()
        self._prompt[text] = now_ns
        if self._word == reason and self._said != reason:
            self._said, self._said_ns, self._stopped_ns = reason, now_ns, self._since_ns
        return [(row.level, text)]

    def _changes(self, reason: str | None, now_ns: int) -> list[tuple[int, str]]:
        lasted_ns = now_ns - self._since_ns
        if self._word == ACTS:
            return self._acting(lasted_ns, now_ns)
        if self._word == self._said:
            if now_ns - self._said_ns < AGAIN_NS:
                return []
            for_s = f" for {(now_ns - self._stopped_ns) * 1e-9:.0f} s"
        elif lasted_ns >= LASTING_NS and reason == self._word:  # and has not just ended
            self._stopped_ns = self._stopped_ns if self._said else self._since_ns
            for_s = ""
        else:
            if reason is not None and not self._said:
                self._brief.add(now_ns, reason)
            return []
        self._said, self._said_ns = self._word, now_ns
        self._brief = Window(int(AGAIN_NS / NS))
        row = reason_of(self._word)
        return [
            (row.level, f"safe action{for_s}: {self._word}: {row.text(self._detail(self._word))}")
        ]

    def _acting(self, lasted_ns: int, now_ns: int) -> list[tuple[int, str]]:
        if self._said or not self._ever:
            if self._said and lasted_ns < LASTING_NS:
                return []
            was, self._said = self._said, ""
            again, self._ever = self._ever, True
            if not was:
                return [(OK, "the policy acts")]
            stopped_s = (self._since_ns - self._stopped_ns) * 1e-9
            words = "acts again" if again else "acts"
            return [(OK, f"the policy {words} after {stopped_s:.1f} s of {was}")]
        if now_ns - self._brief_said_ns < AGAIN_NS:
            return []
        brief = self._brief.counts(now_ns)
        if not brief:
            return []
        self._brief_said_ns, self._brief = now_ns, Window(int(AGAIN_NS / NS))
        listed = ", ".join(f"{word} {n}" for word, n in brief.most_common())
        return [(WARN, f"the policy acts, after single safe actions: {listed}")]

"""Estimates how long a training still takes, from the rates that it has shown so far."""

from __future__ import annotations

from wm_core.training.status import Status

ENOUGH = 20  #: updates from which a rate is taken
LONG_S = 3600.0  #: from here on a shorter training is proposed


class TimeLeft:
    """Estimates the seconds until a training ends; it has to see every ``Status``, in order.

    Rates are means since the first update of this process, evaluations and checkpoints included,
    as these cost time in the rest of the run too.
    """

    def __init__(self) -> None:
        self._begun: int | None = None  # updates when this process began
        self._first: Status | None = None  # the first status after its first update

    def seconds(self, status: Status) -> float | None:
        """Seconds until the first goal is reached; None while too little is known, or no goal."""
        if self._begun is None:
            self._begun = status.updates
        if self._first is None:
            if status.updates > self._begun:
                self._first = status
            return None
        done, passed_s = status.updates - self._first.updates, status.time - self._first.time
        if done < ENOUGH or passed_s <= 0:
            return None
        left_s = []
        if status.updates_goal is not None:
            left_s.append((status.updates_goal - status.updates) * passed_s / done)
        used_s = status.cpu_s - self._first.cpu_s
        if status.cpu_s_goal is not None and used_s > 0:
            left_s.append((status.cpu_s_goal - status.cpu_s) * passed_s / used_s)
        return max(0.0, min(left_s)) if left_s else None


class Forecast:
    """Says once, as soon as it can be known, how long a training will take.

    Args:
        minutes: of CPU time, proposed where it will take longer than an hour.
    """

    def __init__(self, minutes: float = 30) -> None:
        self._left, self._minutes, self._said = TimeLeft(), minutes, False

    def say(self, status: Status) -> str:
        """The sentence, at the first status that allows it; empty before and after."""
        left_s = self._left.seconds(status)
        if left_s is None or self._said:
            return ""
        self._said = True
        text = f"about {in_words(left_s)} to go at this rate"
        if left_s < LONG_S or status.cpu_s_goal is not None:
            return text
        return f"{text}; --train.minutes {self._minutes:g} ends it sooner, Ctrl-C at any time"


def in_words(seconds: float) -> str:
    """A duration as people say it: 40 s, 25 min, 1.5 h, 36 h, 5 days."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    if round(seconds / 60) < 60:
        return f"{seconds / 60:.0f} min"
    hours = seconds / 3600
    if hours < 10:
        return f"{hours:.1f}".removesuffix(".0") + " h"
    return f"{hours:.0f} h" if hours < 100 else f"{hours / 24:.0f} days"

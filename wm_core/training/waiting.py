"""Says what a run waits for, warns of useless steps, and ends waiting that is hopeless."""

from __future__ import annotations

import logging

from wm_core.config import Config
from wm_core.contract.errors import StoreError
from wm_core.replay.demonstrations import WindowSource
from wm_core.store.reader import Store

log = logging.getLogger(__name__)

WARN_SHARES = (0.0, 0.01, 0.1, 0.5, 0.9)  #: of invalid steps, each warned of once when passed


class RunWaiting:
    """Watches a store that may never hold anything to learn from.

    Args:
        store: what is learnt from.
        sampler: draws windows of it.
        length: T, steps per window.
        patience: steps that come without there being a window, after which ``check`` gives up;
            None: never.
        wait_s: seconds of waiting without a new step after which it gives up; None: never.
    """

    def __init__(
        self,
        store: Store,
        sampler: WindowSource,
        *,
        length: int,
        patience: int | None,
        wait_s: float | None = None,
    ) -> None:
        self._store, self._sampler, self._length = store, sampler, length
        self._patience, self._wait_s = patience, wait_s
        self._warned = -1  # index into WARN_SHARES
        self._since_s: float | None = None  # when the steps changed last
        self._steps, self._first = -1, store.steps

    @classmethod
    def of(
        cls, config: Config, store: Store, sampler: WindowSource, *, collects: bool
    ) -> RunWaiting:
        """Watch as ``config`` says; only a run that ``collects`` runs out of patience."""
        train, length = config.train, config.replay.length
        patience = (
            max(train.give_up_steps, 2 * length * train.envs * max(1, train.collectors))
            if collects
            else None
        )
        wait_s = None if train.wait_minutes is None else 60.0 * train.wait_minutes
        return cls(store, sampler, length=length, patience=patience, wait_s=wait_s)

    def sentence(self, now_s: float) -> str:
        """Say what is waited for, and for how long it has been, at ``now_s`` of a steady clock."""
        if self._since_s is None or self._steps != self._store.steps:
            self._since_s, self._steps = now_s, self._store.steps
        held = f", for {_clock(now_s - self._since_s)} now"
        if not self._store.steps:
            return f"the first step in {self._store.root}{held}"
        if not self._sampler.can_sample():
            return f"{self._length} usable steps in a row{held}: {self._why()}"
        return f"more steps than the {self._steps} that are learnt from{held}"

    def ended(self) -> None:
        """Note that the run learns: when it waits again, the time is counted anew."""
        self._since_s = None

    def check(self) -> None:
        """Give up where nothing can be learnt from what has come.

        Raises:
            StoreError: naming the input at fault.
        """
        if self._sampler.can_sample():
            return
        came = self._store.steps - self._first
        if self._patience is not None and came >= self._patience:
            raise StoreError(
                f"nothing to learn from after {came} steps, given up (--train.give-up-steps): "
                f"{self._why()}"
            )

    def check_time(self, now_s: float) -> None:
        """Give up where nothing has come for too long, at ``now_s`` of a steady clock.

        Raises:
            StoreError: saying what was waited for.
        """
        waited_for = self.sentence(now_s)
        assert self._since_s is not None
        if self._wait_s is not None and now_s - self._since_s > self._wait_s:
            minutes = self._wait_s / 60.0
            raise StoreError(f"waited --train.wait-minutes {minutes:g} for {waited_for}")

    def refuse(self) -> StoreError:
        """Make the error for a source that is over and holds nothing to learn from."""
        return StoreError(f"nothing to learn from: {self._why()}")

    def warn(self) -> None:
        """Warn of invalid steps, once and again when their share passes the next bound."""
        invalid = self._store.invalid
        passed = sum(invalid.share > share for share in WARN_SHARES) - 1
        if passed > self._warned:
            log.warning(
                "%.2g %% of the steps are not learnt from, as numbers in them are not finite or "
                "too large: %s",
                100.0 * invalid.share,
                invalid.worst(),
            )
        self._warned = max(self._warned, passed)

    def _why(self) -> str:
        """Why no window can be drawn."""
        store, longest = self._store, max((s.length for s in self._store.segments), default=0)
        text = (
            f"of {store.steps} steps at most {longest} usable ones are in a row, expected "
            f"{self._length} (--replay.length)"
        )
        if store.invalid.total:
            return f"{text}; not finite or too large: {store.invalid.worst()}"
        if store.left_out:
            said = ", ".join(f"{n} {reason}" for reason, n in store.left_out.most_common(3))
            return f"{text}; chunks that are left out: {said}"
        return f"{text}; collect more, or learn from shorter windows"


def _clock(seconds: float) -> str:
    minutes, s = divmod(int(max(0.0, seconds)), 60)
    return f"{minutes}:{s:02d} min"

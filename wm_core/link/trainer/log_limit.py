"""Keeps the service's log readable and the disk free while somebody provokes errors.

A line is cut, and its control characters are replaced; of one kind of line, that is one place in
the code, a few pass in each period, and the next period says how many did not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from wm_core.contract.errors import shown

MOST, PERIOD_S = 10, 10.0
_MAX_KINDS = 1000  # places in the code that are counted; more forget the others


class LogLimit(logging.Filter):
    """Lets ``most`` lines of each kind pass in ``period_s``, each of at most 500 characters."""

    def __init__(
        self,
        most: int = MOST,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._most, self._period_s, self._clock = most, period_s, clock
        self._kinds: dict[tuple[str, int], tuple[float, int]] = {}  # (began, lines since then)

    def filter(self, record: logging.LogRecord) -> bool:
        kind, now_s = (record.pathname, record.lineno), self._clock()
        began_s, count = self._kinds.get(kind, (now_s, 0))
        left_out = 0
        if now_s - began_s >= self._period_s:
            left_out, began_s, count = max(0, count - self._most), now_s, 0
        if len(self._kinds) >= _MAX_KINDS:
            self._kinds.clear()
        self._kinds[kind] = (began_s, count + 1)
        if count >= self._most:
            return False
        text = shown(record.getMessage())
        record.msg = f"{text} ({left_out} more of this kind were left out)" if left_out else text
        record.args = ()
        return True

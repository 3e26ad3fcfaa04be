"""Reads and writes points in time as people do, in UTC."""

from __future__ import annotations

import re
import time
from datetime import datetime, timezone

from wm_core.contract.errors import StoreError

_AGO = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def moment(stamp_ns: int) -> str:
    """Write a stamp as a date and a time of day, UTC."""
    when = datetime.fromtimestamp(stamp_ns // 1_000_000_000, timezone.utc)
    return when.strftime("%Y-%m-%d %H:%M:%S")


def read_moment(text: str, option: str) -> int | None:
    """Read a point in time, ns: a date with or without a time of day, or how long ago it was.

    Args:
        text: such as 2026-11-30, 2026-11-30T14:05 or 3d; empty for none.
        option: that it was given as, for the message.

    Raises:
        StoreError: for anything else.
    """
    if not text:
        return None
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return time.time_ns() - read_span(text, option)
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise StoreError(
            f"{option} {text!r}: expected a date such as 2026-11-30 or 2026-11-30T14:05 (UTC), or "
            "how long ago, such as 3d, 12h or 30m"
        ) from None
    if when.tzinfo is None:
        when = when.replace(tzinfo=timezone.utc)
    return int(when.timestamp()) * 1_000_000_000


def read_span(text: str, option: str) -> int:
    """Read a length of time such as 30d, 12h, 30m or 45s, ns; raises ``StoreError``."""
    found = _AGO.fullmatch(text.strip())
    if not found:
        raise StoreError(f"{option} {text!r}: expected a time such as 30d, 12h, 30m or 45s")
    return int(float(found[1]) * _UNITS[found[2]] * 1e9)

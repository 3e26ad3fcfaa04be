"""Words for times, sizes and texts of others, as the page shows them."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

from wm_core.contract.errors import shown


def text(value: object, limit: int = 120) -> str:
    """One line of ``value`` that is safe in HTML, attributes included."""
    return html.escape(shown(value, limit))


def ago(seconds: float | None) -> str:
    """How long ago that was: 0.4 s, 40 s, 5 min, 3 h, 12 d; a dash where nobody knows."""
    if seconds is None or not math.isfinite(seconds):
        return "–"
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    for name, size, most in (("s", 1, 90), ("min", 60, 90), ("h", 3600, 48)):
        if seconds < most * size:
            return f"{seconds / size:.0f} {name}"
    return f"{seconds / 86400:.0f} d"


def size(count: float | None) -> str:
    """Bytes in few characters: 512 B, 3.2 MB, 40 GB; a dash where nobody knows."""
    if count is None or not math.isfinite(count):
        return "–"
    for unit, one in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= one:
            return f"{count / one:.3g} {unit}"
    return f"{count:.0f} B"


def count(value: float | None) -> str:
    """A whole number with thin spaces between its thousands; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.0f}".replace(",", "\N{NARROW NO-BREAK SPACE}")


def rows(pairs: Sequence[tuple[str, str]]) -> str:
    """Rows of a table: a name, which is escaped here, and HTML."""
    return "".join(f"<tr><th>{text(name)}</th><td>{value}</td></tr>" for name, value in pairs)


def facts_table(pairs: Sequence[tuple[str, str]]) -> str:
    """A table of names, which are escaped here, and HTML beside them."""
    return f'<table class="facts">{rows(pairs)}</table>'


def note(sentence: str, kind: str = "muted") -> str:
    """A paragraph with one sentence, which is escaped here; ``kind`` is muted, warn or bad."""
    return f'<p class="{kind}">{text(sentence, 500)}</p>'

"""Charts and bars as <svg> elements whose colours the style sheet gives; the report uses them too.

Everything that is drawn is escaped here; numbers that are not finite are left out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

STYLE = Path(__file__).parent / "static" / "page.css"  #: the one style sheet of page and report
_LEFT, _RIGHT, _TOP, _BOTTOM = 46.0, 14.0, 10.0, 36.0  # margins in pixels
_LEGEND = 18.0  # more at the top where something is named
_BAR = 22.0  # height of an action's row in pixels
_Scale = Callable[[float], float]  # a number to pixels


def nice_ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers that divide ``low`` to ``high`` into at most ``most`` steps."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low]
    raw = (high - low) / max(1, most)
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [n * step for n in range(first, math.floor(high / step + 1e-9) + 1)]


def in_short(value: float | None, digits: int = 3) -> str:
    """A number in few characters: 12.3k, 1.2M, 0.05; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.{digits}g}{unit}"
    if abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{digits}g}" if abs(value) >= 1e-9 else "0"


@dataclass
class Chart:
    """Collects what is drawn over two axes, and draws it at the end.

    The axes span what was given, levels included.
    """

    x_label: str = ""
    y_label: str = ""
    width: float = 480.0
    height: float = 220.0
    log_counts: bool = False  #: the y axis grows as log(1 + y)
    _shapes: list[tuple[str, list[tuple[float, float]], str]] = field(default_factory=list)
    _levels: list[tuple[float, str]] = field(default_factory=list)
    _marks: list[tuple[float, str]] = field(default_factory=list)
    _bars: list[tuple[float, float, float]] = field(default_factory=list)

    def line(
        self, xs: Sequence[float], ys: Sequence[float], label: str = "", kind: str = "a"
    ) -> None:
        """Join points by a line; ``kind`` is a or b, its colour."""
        self._shapes.append((f"line {kind}", _finite(xs, ys), label))

    def dots(self, xs: Sequence[float], ys: Sequence[float], label: str = "") -> None:
        """Draw each point as a dot."""
        self._shapes.append(("dots", _finite(xs, ys), label))

    def band(
        self, xs: Sequence[float], lows: Sequence[float], highs: Sequence[float], label: str = ""
    ) -> None:
        """Shade what lies between two lines."""
        whole = [
            (x, low, high)
            for x, low, high in zip(xs, lows, highs, strict=True)
            if all(map(math.isfinite, (x, low, high)))
        ]
        ring = [(x, high) for x, _, high in whole] + [(x, low) for x, low, _ in reversed(whole)]
        self._shapes.append(("band", ring, label))

    def level(self, y: float, text: str) -> None:
        """Draw a dotted line across at ``y``, with a word at its end."""
        if math.isfinite(y):
            self._levels.append((y, text))

    def mark(self, x: float, text: str) -> None:
        """Draw a thin upright line at ``x``; ``text`` shows where a pointer rests on it."""
        if math.isfinite(x):
            self._marks.append((x, text))

    def bars(self, edges: Sequence[float], counts: Sequence[float]) -> None:
        """Draw bars between successive edges, one more of them than counts."""
        pairs = zip(edges[:-1], edges[1:], counts, strict=True)
        self._bars += [(left, right, n) for left, right, n in pairs if n > 0]

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to draw but levels and marks."""
        return not self._bars and not any(points for _, points, _ in self._shapes)

    @property
    def _top(self) -> float:
        return _TOP + (_LEGEND if any(label for _, _, label in self._shapes) else 0.0)

    def svg(self) -> str:
        """Draw everything as one <svg> element."""
        x0, x1, y0, y1 = self._span()
        right = self.width - _RIGHT - (44.0 if self._levels else 0.0)
        top, bottom = self._top, self.height - _BOTTOM

        def px(x: float) -> float:
            return _LEFT + (x - x0) / (x1 - x0) * (right - _LEFT)

        def py(y: float) -> float:
            share = (self._scaled(y) - self._scaled(y0)) / (self._scaled(y1) - self._scaled(y0))
            return bottom - share * (bottom - top)

        parts = [
            f'<svg class="chart" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{html.escape(self.y_label)} against {html.escape(self.x_label)}">'
        ]
        parts += self._axes(px, py, right, bottom, (x0, x1, y0, y1))
        for x, text in self._marks:
            if x0 <= x <= x1:
                parts.append(
                    f'<line class="mark" x1="{px(x):.1f}" x2="{px(x):.1f}" y1="{top:g}" '
                    f'y2="{bottom:.1f}"><title>{html.escape(text)}</title></line>'
                )
        base = py(max(y0, 0.0) if y0 <= 0 <= y1 else y0)
        for left, end, count in self._bars:
            upper = py(count)
            parts.append(
                f'<rect class="bar" x="{px(left):.1f}" width="{max(0.5, px(end) - px(left)):.1f}" '
                f'y="{upper:.1f}" height="{max(0.0, base - upper):.1f}"/>'
            )
        for kind, points, _ in self._shapes:
            parts += _shape(kind, [(px(x), py(y)) for x, y in points])
        for y, text in self._levels:
            parts.append(
                f'<line class="level" x1="{_LEFT:g}" x2="{right:.1f}" y1="{py(y):.1f}" '
                f'y2="{py(y):.1f}"/><text class="end" x="{right + 4:.1f}" y="{py(y) + 4:.1f}">'
                f"{html.escape(text)}</text>"
            )
        return "".join([*parts, self._legend(), "</svg>"])

    def _scaled(self, y: float) -> float:
        return math.log10(1.0 + max(0.0, y)) if self.log_counts else y

    def _span(self) -> tuple[float, float, float, float]:
        xs = [x for _, points, _ in self._shapes for x, _ in points]
        ys = [y for _, points, _ in self._shapes for _, y in points]
        xs += [x for left, right, _ in self._bars for x in (left, right)]
        ys += [n for _, _, n in self._bars] + ([0.0] if self._bars else [])
        ys += [y for y, _ in self._levels]
        x0, x1 = (min(xs), max(xs)) if xs else (0.0, 1.0)
        y0, y1 = (min(ys), max(ys)) if ys else (0.0, 1.0)
        x1 = x1 if x1 > x0 else x0 + max(1.0, abs(x0) * 1e-6)
        room = (y1 - y0) * 0.06 if y1 > y0 else max(0.5, abs(y0) * 1e-6)
        return x0, x1, y0 - (0.0 if self._bars else room), y1 + room

    def _axes(
        self, px: _Scale, py: _Scale, right: float, bottom: float, span: tuple[float, ...]
    ) -> list[str]:
        x0, x1, y0, y1 = span
        ticks = [(y, in_short(y)) for y in nice_ticks(y0, y1)]
        if self.log_counts:
            ticks = [(0.0, "0"), *((10.0**n, in_short(10.0**n)) for n in range(9))]
        parts = [
            f'<line class="grid" x1="{_LEFT:g}" x2="{right:.1f}" y1="{py(y):.1f}" '
            f'y2="{py(y):.1f}"/><text class="y" x="{_LEFT - 5:g}" y="{py(y) + 4:.1f}">'
            f"{words}</text>"
            for y, words in ticks
            if y0 <= y <= y1
        ]
        parts += [
            f'<text class="x" x="{px(x):.1f}" y="{bottom + 15:.1f}">{in_short(x)}</text>'
            for x in nice_ticks(x0, x1, 5)
        ]
        parts.append(
            f'<text class="x label" x="{(_LEFT + right) / 2:.1f}" y="{self.height - 5:.1f}">'
            f"{html.escape(self.x_label)}</text>"
        )
        return parts

    def _legend(self) -> str:
        named = [(kind, label) for kind, _, label in self._shapes if label]
        x, parts = _LEFT + 6, []
        for kind, label in named:
            parts.append(
                f'<rect class="key {kind}" x="{x:.0f}" y="2" width="10" height="10"/>'
                f'<text class="legend" x="{x + 14:.0f}" y="11">'
                f"{html.escape(label)}</text>"
            )
            x += 26 + 6.4 * len(label)
        return "".join(parts)


def _finite(xs: Sequence[float], ys: Sequence[float]) -> list[tuple[float, float]]:
    return [(x, y) for x, y in zip(xs, ys, strict=True) if math.isfinite(x) and math.isfinite(y)]


def _shape(kind: str, points: list[tuple[float, float]]) -> list[str]:
    if not points:
        return []
    if kind == "dots":
        return [f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="2.2"/>' for x, y in points]
    if len(points) == 1:
        ((x, y),) = points
        return [f'<circle class="dot {kind}" cx="{x:.1f}" cy="{y:.1f}" r="3"/>']
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    if kind == "band":
        return [f'<polygon class="band" points="{joined}"/>']
    return [f'<polyline class="{kind}" points="{joined}"/>']


def action_bars(
    action: Sequence[float | None],
    low: Sequence[float | None],
    high: Sequence[float | None],
    names: Sequence[str],
    *,
    width: float = 400.0,
) -> str:
    """Draw the numbers of an action as bars from 0, or from the middle, between their limits.

    Args:
        action: (A,) in physical units.
        low: (A,) least that is sent; shorter where limits are not known.
        high: (A,) most that is sent.
        names: (A,) of the numbers.
        width: of the drawing in pixels.
    """
    left, right = 110.0, width - 70.0
    rows = []
    for i, value in enumerate(action):
        least = low[i] if i < len(low) else None
        most = high[i] if i < len(high) else None
        name = names[i] if i < len(names) else f"action {i}"
        rows.append(_action_row(i * _BAR, left, right, name, value, least, most))
    height = _BAR * max(1, len(rows))
    return (
        f'<svg class="bars" viewBox="0 0 {width:g} {height:g}" role="img" '
        f'aria-label="the newest action between its limits">{"".join(rows)}</svg>'
    )


def _action_row(
    top: float,
    left: float,
    right: float,
    name: str,
    value: float | None,
    least: float | None,
    most: float | None,
) -> str:
    known = value is not None and math.isfinite(value)
    number = value if known and value is not None else 0.0
    span = max(1.0, abs(number))
    low = least if least is not None and math.isfinite(least) else -span
    high = most if most is not None and math.isfinite(most) else span
    high = high if high > low else low + 1.0

    def px(at: float) -> float:
        return left + min(1.0, max(0.0, (at - low) / (high - low))) * (right - left)

    zero, end = px(0.0 if low <= 0.0 <= high else low), px(number)
    parts = [
        f'<text class="name" x="0" y="{top + 15:g}">{html.escape(name[:16])}</text>',
        f'<rect class="track" x="{left:g}" y="{top + 5:g}" width="{right - left:g}" height="12" '
        f'rx="2"><title>{html.escape(f"{name}: {low:g} to {high:g}")}</title></rect>',
        f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="{top + 3:g}" y2="{top + 19:g}"/>',
    ]
    if known:
        at_limit = " limit" if number <= low or number >= high else ""
        parts.append(
            f'<rect class="bar{at_limit}" x="{min(zero, end):.1f}" y="{top + 5:g}" '
            f'width="{abs(end - zero):.1f}" height="12" rx="2"/>'
        )
    shown = f"{number:+.3f}" if known else "–"
    parts.append(f'<text class="value" x="{right + 66:g}" y="{top + 15:g}">{shown}</text>')
    return "".join(parts)

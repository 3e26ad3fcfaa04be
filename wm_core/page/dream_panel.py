"""Writes what the world model makes of the newest episode: pictures, rewards and surprise."""

from __future__ import annotations

from typing import Any

from wm_core.page.drawing import Chart
from wm_core.page.returns import number
from wm_core.page.run_reader import RunView, nothing_yet
from wm_core.page.wording import ago, note, text

_BOTH = ("truth", "imagined")
_OLD_S = 30.0  #: after which a dream is said to be old


def dream_age(run: RunView) -> str:
    """Say how old the dream is, where that is long."""
    if run.dream_age_s is None or run.dream_age_s < _OLD_S:
        return ""
    return note(f"This dream is {ago(run.dream_age_s)} old.", "warn")


def understands(run: RunView) -> str:
    """Truth, dream and error of the newest episode, rewards and surprise."""
    dream = run.dream
    latest = run.learner.get("dream")
    if not dream and isinstance(latest, dict) and latest.get("why"):
        return note(f"No dream yet: {latest['why']}.")
    if not dream:
        why = "the learner draws a dream every few seconds while this page is open"
        return note(nothing_yet(run, why))
    parts = []
    observed = int(number(dream.get("observed")) or 0)
    if run.pictures.get("truth") and dream.get("frames"):
        names = {"truth": "what the camera saw", "imagined": "what it imagined", "error": "error"}
        parts += [
            f'<figure class="strip"><figcaption>{words}</figcaption><div class="film">'
            f'<img id="dream-{name}" alt="{words}"></div></figure>'
            for name, words in names.items()
        ]
    elif dream.get("why_no_pictures"):
        parts.append(note(f"{dream['why_no_pictures']}."))
        parts.append(_vectors(dream.get("vectors"), observed))
    if dream.get("limit"):
        parts.append(note(f"{dream['limit']}."))
    parts.append(_curve("error of the picture (of 255)", {"": dream.get("error")}, 0))
    seen = {"got": dream.get("reward"), "predicted": dream.get("reward_imagined")}
    parts.append(_curve("reward", seen, observed))
    parts.append(_curve("surprise (nats)", {"": dream.get("surprise")}, observed))
    return "".join(parts)


def _vectors(vectors: Any, observed: int) -> str:
    """Draw the first two numbers of the first thing that is measured, as they came and dreamt."""
    items = list(vectors.items())[:1] if isinstance(vectors, dict) else []
    parts = []
    for name, both in items:
        columns = [_columns(both.get(k) if isinstance(both, dict) else None) for k in _BOTH]
        for i in range(min(2, *map(len, columns))):
            curves = {"came": columns[0][i], "imagined": columns[1][i]}
            parts.append(_curve(f"{name} {i}", curves, observed))
    return "".join(parts)


def _columns(rows: Any) -> list[list[Any]]:
    rows = [row for row in rows if isinstance(row, list)] if isinstance(rows, list) else []
    return [list(column) for column in zip(*rows, strict=False)]


def _curve(label: str, curves: dict[str, Any], observed: int) -> str:
    """Draw numbers of successive steps; from 1 on they are imagined."""
    chart = Chart("steps ahead; up to 0 it sees" if observed else "steps ahead", "", height=130)
    for kind, (name, values) in zip("ba", curves.items(), strict=False):
        ys = [number(v) for v in values[:500]] if isinstance(values, list) else []
        kept = [(i + 1 - observed, y) for i, y in enumerate(ys) if y is not None]
        if kept:
            chart.line([x for x, _ in kept], [y for _, y in kept], name, kind=kind)
    if observed:
        chart.mark(0.5, "from here on it imagines")
    return "" if chart.is_empty else f"<h3>{text(label)}</h3>{chart.svg()}"

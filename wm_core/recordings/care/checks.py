"""Checks the steps of a session: time, numbers, cameras, sensors that lag, actions, rewards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from wm_core.recordings.care.findings import Finding
from wm_core.recordings.care.track import SensorTrack, Track

_LEAST_REPEATS = 10  #: steps, however short
_MOVED = 1e-3  #: change of an action, of 2, from which it counts as moving
_STIRRING = 0.05  #: of the large changes of a sensor, from which it counts as moving
_DARK, _BRIGHT = 0.03, 0.97  #: of the range of a pixel
_MOST_LAG = 10  #: steps that a sensor is looked for behind another
_LEAST_LAG = 2  #: ... and that are worth a word
_LEAST_STEPS = 100  #: from which lags are looked for
_LEAST_LIKENESS, _LEAST_GAIN = 0.4, 0.25  #: correlations at the lag, and above that in step


@dataclass(frozen=True)
class Limits:
    """Says from where on something counts as wrong."""

    frozen_s: float = 1.0  #: that a sensor may repeat itself while something moves
    jump_periods: float = 3.0  #: that may lie between two steps of an episode


def check_track(track: Track, limits: Limits) -> Iterator[Finding]:
    """Look at consecutive steps of one session.

    Args:
        track: of at least one step.
        limits: what counts as wrong.
    """
    yield from _times(track, limits)
    yield from _numbers(track)
    yield from _repeats(track, limits)
    yield from _pictures(track)
    yield from _lags(track)
    yield from _borders(track)


def runs_of(bad: np.ndarray) -> list[tuple[int, int]]:
    """List (start, stop) of each run of True in ``bad`` (n,)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _found(track: Track, check: str, start: int, stop: int, detail: str) -> Finding:
    return Finding(
        check, detail, track.robot, track.session, int(track.seq[start]),
        int(track.index[start]), stop - start,
    )  # fmt: skip


# ---------------------------------------------------------------------------- time


def _times(track: Track, limits: Limits) -> Iterator[Finding]:
    if len(track) < 2:
        return
    passed = np.diff(track.stamp_ns)
    period = track.period_ns[:-1]
    for start, stop in runs_of(passed <= 0):
        back_s = -float(passed[start:stop].min()) / 1e9
        said = f"back by {back_s:.6g} s" if back_s else "the same stamp again"
        yield _found(track, "time_back", start + 1, stop + 1, said)
    jumps = (passed > limits.jump_periods * period) & ~track.begins[1:]
    for i in np.flatnonzero(jumps).tolist():
        said = f"{passed[i] / 1e9:.3g} s between two steps; a period is {period[i] / 1e9:.3g} s"
        yield _found(track, "time_jump", i + 1, i + 2, said)


# ---------------------------------------------------------------------------- numbers


def _numbers(track: Track) -> Iterator[Finding]:
    for check, bad in (
        ("not_finite", ~track.finite),
        ("action_bounds", track.finite & ~track.in_bounds),
        ("unusable", track.finite & ~track.in_range),
        ("marked_invalid", track.finite & track.in_bounds & track.in_range & ~track.is_valid),
    ):
        for start, stop in runs_of(bad):
            yield _found(track, check, start, stop, _culprit(track, check, start))


def _culprit(track: Track, check: str, at: int) -> str:
    """Name the number at fault of step ``at``."""
    action = track.action[at]
    if check == "marked_invalid":
        return "its numbers are usable; the recorder said not to learn from it"
    if check == "action_bounds" or not np.isfinite(action).all():
        worst = int(np.argmax(np.where(np.isfinite(action), np.abs(action), np.inf)))
        bounds = "one choice" if track.spec.action.discrete else "-1 .. 1"
        return f"action number {worst} is {action[worst]:.6g}; expected {bounds}"
    for key, values in track.vectors.items():
        size = np.where(np.isfinite(values[at]), np.abs(values[at]), np.inf)
        worst = int(np.argmax(size))
        if size[worst] > 1e9:
            return f"{key} number {worst} is {values[at][worst]:.6g}"
    if not np.isfinite(track.reward[at]) or check == "unusable":
        return f"its reward is {track.reward[at]:.6g}, or its period is none"
    return "its period is not finite"


# ---------------------------------------------------------------------------- repeats


def _repeats(track: Track, limits: Limits) -> Iterator[Finding]:
    """Sensors that say the same again and again while another sensor, or the action, moves.

    That the action moves proves less: a robot may be stuck, or out of the camera's sight.
    """
    acts = np.concatenate([[False], (np.abs(np.diff(track.action, axis=0)) > _MOVED).any(1)])
    moving = {key: _moves(sensor) for key, sensor in track.sensors.items()}
    least = round(limits.frozen_s * 1e9 / float(np.median(track.period_ns)))
    for key, sensor in track.sensors.items():
        others = [moves for other, moves in moving.items() if other != key]
        sensed = np.logical_or.reduce(others) if others else np.zeros(len(track), bool)
        for start, stop in runs_of(sensor.same):
            if stop - start < max(_LEAST_REPEATS, least):
                continue
            seconds = float(track.period_ns[start:stop].sum()) / 1e9
            said = f"{key} repeats itself for {seconds:.3g} s"
            what = "camera" if sensor.is_image else "sensor"
            if sensed[start:stop].mean() >= 0.5:
                check = "frozen_camera" if sensor.is_image else "stuck_sensor"
                yield _found(track, check, start, stop, said)
            elif (acts | sensed)[start:stop].mean() >= 0.5:
                yield _found(track, f"still_{what}", start, stop, said)


def _moves(sensor: SensorTrack) -> np.ndarray:
    """(n,) bool: whether a sensor moves, as it does; what settles or trembles does not."""
    changed = sensor.change[sensor.change > 0]
    if not len(changed):
        return np.zeros(len(sensor.change), bool)
    return np.asarray(sensor.change > _STIRRING * np.quantile(changed, 0.9))


def _pictures(track: Track) -> Iterator[Finding]:
    for key, sensor in track.sensors.items():
        if sensor.is_image:
            for check, bad in (
                ("black_image", sensor.high <= _DARK),
                ("white_image", sensor.low >= _BRIGHT),
            ):
                for start, stop in runs_of(bad):
                    colour = check.partition("_")[0]
                    yield _found(track, check, start, stop, f"{key} is {colour}")


# ---------------------------------------------------------------------------- lags


def _lags(track: Track) -> Iterator[Finding]:
    """Sensors that move some steps after another one does, always by the same number of steps."""
    if len(track) < _LEAST_STEPS:
        return
    found = {key: _standard(s) for key, s in track.sensors.items()}
    signals = {key: signal for key, signal in found.items() if signal is not None}
    keys = list(signals)
    told: set[str] = set()
    for i, a in enumerate(keys):
        for b in keys[i + 1 :]:
            lag, like, in_step = _lag(signals[a], signals[b])
            if abs(lag) < _LEAST_LAG or like < _LEAST_LIKENESS or like - in_step < _LEAST_GAIN:
                continue
            late, early = (a, b) if lag > 0 else (b, a)
            if late in told:
                continue
            told.add(late)
            ms = abs(lag) * float(np.median(track.period_ns)) / 1e6
            said = (
                f"{late} moves {abs(lag)} steps ({ms:.0f} ms) after {early} "
                f"(correlation {like:.2f}, in step {in_step:.2f})"
            )
            yield _found(track, "out_of_step", 0, len(track), said)


def _standard(sensor: SensorTrack) -> np.ndarray | None:
    """The changes (n,) of a sensor with mean 0 and deviation 1; None where it hardly moves."""
    change = sensor.change.astype(np.float64)
    change = np.minimum(change, np.quantile(change, 0.98))  # a cut to another scene says nothing
    deviation = change.std()
    if deviation < 1e-9 or (change > 0).mean() < 0.1:
        return None
    return np.asarray((change - change.mean()) / deviation)


def _lag(a: np.ndarray, b: np.ndarray) -> tuple[int, float, float]:
    """By how many steps ``a`` (n,) comes after ``b`` (n,), how alike then, and how alike at 0."""
    likes = {}
    for lag in range(-_MOST_LAG, _MOST_LAG + 1):
        late, early = (a[lag:], b[: len(b) - lag]) if lag >= 0 else (a[:lag], b[-lag:])
        likes[lag] = float((late * early).mean())
    best = max(likes, key=lambda lag: (likes[lag], -abs(lag)))
    return best, likes[best], likes[0]


# ---------------------------------------------------------------------------- episodes


def _borders(track: Track) -> Iterator[Finding]:
    for i in np.flatnonzero(track.is_first & track.is_last).tolist():
        yield _found(track, "empty_episode", i, i + 1, "it begins and ends at the same step")

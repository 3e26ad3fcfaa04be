"""Reduces the steps of a session to what the checks look at: a few numbers per step and sensor."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from wm_core.contract.inputs import ImageSpec
from wm_core.contract.spec import Spec
from wm_core.contract.step import FLOATS, usable
from wm_core.format.chunk import Columns

_SIDE = 64  # rows and columns of an image, at most, of which change and brightness are taken


@dataclass
class SensorTrack:
    """Says of each step how a sensor's reading differs from that of the step before."""

    is_image: bool
    same: np.ndarray  #: (n,) bool, bit for bit; False where there is no step before
    change: np.ndarray  #: (n,) float32 mean distance from the step before, in its own units
    low: np.ndarray  #: (n,) float32 smallest number looked at; of images 0 .. 1
    high: np.ndarray  #: (n,) float32 largest


@dataclass
class Track:
    """Holds consecutive chunks of one session, n steps in all."""

    robot: str
    session: str
    spec: Spec
    seq: np.ndarray  #: (n,) int64 of the chunk
    index: np.ndarray  #: (n,) int64 in the session
    begins: np.ndarray  #: (n,) bool, no step that was recorded just before led here
    is_first: np.ndarray  #: (n,) bool
    is_last: np.ndarray  #: (n,) bool
    is_valid: np.ndarray  #: (n,) bool, as it was recorded
    finite: np.ndarray  #: (n,) bool
    in_bounds: np.ndarray  #: (n,) bool, of the action
    in_range: np.ndarray  #: (n,) bool, of everything else
    stamp_ns: np.ndarray  #: (n,) int64
    period_ns: np.ndarray  #: (n,) float64, for which the action was held
    action: np.ndarray  #: (n, A) float32
    reward: np.ndarray  #: (n,) float64
    vectors: dict[str, np.ndarray]  #: (n, size) float32
    sensors: dict[str, SensorTrack] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.index)


@dataclass
class Before:
    """Remembers the last step of the chunk before."""

    index: int = -2
    ended: bool = True
    readings: dict[str, np.ndarray] = field(default_factory=dict)


def track_chunk(columns: Columns, before: Before) -> Track:
    """Reduce one chunk; ``before`` is of the chunk before it in the session, and is renewed."""
    meta, spec = columns.meta, columns.meta.spec
    n, first = meta.steps, columns.numbers["is_first"]
    last = columns.numbers["is_last"]
    follows = meta.first_step == before.index + 1
    ended = np.concatenate([[before.ended or not follows], last[:-1]])
    begins = first | ended
    period = columns.numbers["period_s"]
    period = np.where(np.isfinite(period) & (period > 0), period, spec.period_s)
    floats = {name: columns.numbers[name] for name in FLOATS}
    track = Track(
        robot=meta.robot,
        session=meta.session,
        spec=spec,
        seq=np.full(n, meta.seq),
        index=meta.first_step + np.arange(n),
        begins=begins,
        is_first=first,
        is_last=last,
        is_valid=columns.numbers["is_valid"],
        finite=_finite(columns),
        in_bounds=usable(spec.action, {}, columns.action),
        in_range=usable(spec.action, columns.vectors, np.zeros_like(columns.action), **floats),
        stamp_ns=columns.stamp_ns,
        period_ns=period * 1e9,
        action=columns.action,
        reward=columns.numbers["reward"],
        vectors=columns.vectors,
    )
    readings: dict[str, np.ndarray] = {}
    for key, image in spec.images.items():
        frames = [columns.image(key, i) for i in range(n)]
        track.sensors[key] = _camera(frames, image, begins, before.readings.get(key))
        readings[key] = frames[-1].copy()
    for key in spec.vectors:
        values = columns.vectors[key]
        track.sensors[key] = _vector(values, begins, before.readings.get(key))
        readings[key] = values[-1].copy()
    before.index, before.ended = meta.first_step + n - 1, bool(last[-1])
    before.readings = readings
    return track


def _finite(columns: Columns) -> np.ndarray:
    """(n,) bool: whether vectors, action and numbers are free of NaN and infinity."""
    good = np.isfinite(columns.action).all(1)
    for name in FLOATS:
        good &= np.isfinite(columns.numbers[name])
    for values in columns.vectors.values():
        good &= np.isfinite(values).all(1)
    return good


def _camera(
    frames: list[np.ndarray], image: ImageSpec, begins: np.ndarray, before: np.ndarray | None
) -> SensorTrack:
    n, full = len(frames), float(np.iinfo(image.dtype).max)
    same, change = np.zeros(n, bool), np.zeros(n, np.float32)
    low, high = np.zeros(n, np.float32), np.zeros(n, np.float32)
    rows = slice(None, None, -(-image.height // _SIDE))
    columns = slice(None, None, -(-image.width // _SIDE))
    few_before: np.ndarray | None = None
    if before is not None and before.shape == frames[0].shape:
        few_before = before[rows, columns].astype(np.int32)
    for i, frame in enumerate(frames):
        few = frame[rows, columns].astype(np.int32)
        low[i], high[i] = few.min() / full, few.max() / full
        if few_before is not None and not begins[i]:
            change[i] = np.abs(few - few_before).mean() / full
            assert before is not None
            same[i] = change[i] == 0 and np.array_equal(frame, before)
        few_before, before = few, frame
    return SensorTrack(True, same, change, low, high)


def _vector(values: np.ndarray, begins: np.ndarray, before: np.ndarray | None) -> SensorTrack:
    """Of ``values`` (n, size) and those (size,) of the step before."""
    there = before is not None and before.shape == values[0].shape
    first = before[None] if before is not None and there else values[:1]
    earlier = np.concatenate([first, values[:-1]])
    same = (values == earlier).all(1) & ~begins
    same[0] &= there
    with np.errstate(invalid="ignore", over="ignore"):
        change = np.abs(values.astype(np.float64) - earlier).mean(1)
    change = np.where(begins | ~np.isfinite(change), 0.0, change).astype(np.float32)
    change[0] *= there
    return SensorTrack(False, same, change, values.min(1), values.max(1))


def joined(tracks: list[Track]) -> Track:
    """Join the tracks of consecutive chunks of one session and one spec."""
    first = tracks[0]
    arrays = {
        name: np.concatenate([getattr(t, name) for t in tracks])
        for name, value in vars(first).items()
        if isinstance(value, np.ndarray)
    }
    vectors = {k: np.concatenate([t.vectors[k] for t in tracks]) for k in first.vectors}
    sensors = {
        key: SensorTrack(
            sensor.is_image,
            *(
                np.concatenate([getattr(t.sensors[key], name) for t in tracks])
                for name in ("same", "change", "low", "high")
            ),
        )
        for key, sensor in first.sensors.items()
    }
    return Track(
        first.robot, first.session, first.spec, vectors=vectors, sensors=sensors, **arrays
    )

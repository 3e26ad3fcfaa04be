"""Decodes the frames of videos that rows ask for, forward and one at a time.

Frames are found by their times of presentation, which are read beforehand without decoding: so a
frame that is missing is known to be missing, and none takes the place of another.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import RecordingError, shown
from wm_core.recordings.libraries import import_library
from wm_core.recordings.tables.damage import unreadable
from wm_core.recordings.tables.images import FrameShape

_NEEDED_FOR = "videos of LeRobot sets"
_RATE_SLACK = 0.02  # of the period: by which a video's may differ from the set's


class Video:
    """Is one video file that is open.

    Args:
        path: of the file.
        shape: of its frames; another size is refused.

    Raises:
        RecordingError: where it cannot be read.
    """

    def __init__(self, path: Path, shape: FrameShape | None = None) -> None:
        self.path = path
        self._av = import_library("av", needed_for=_NEEDED_FOR)
        self._shape = shape
        self._container: Any = None
        self._frames: Iterator[Any] = iter(())
        self._ahead: Any = None  # decoded and not asked for yet
        self._passed = -(2**63)  # time of the last frame that was decoded, in ticks
        self._ticks, self._tick_s = self._times()

    @property
    def times_s(self) -> np.ndarray:
        """Give the times (n,) of all frames that are in the file, in order, seconds."""
        return self._ticks * self._tick_s

    def check_rate(self, fps: float) -> None:
        """Raise ``RecordingError`` unless the frames come ``fps`` times a second."""
        if len(self._ticks) < 3:
            return
        period_s = float(np.median(np.diff(self._ticks))) * self._tick_s
        if abs(period_s * fps - 1.0) > _RATE_SLACK:
            raise RecordingError(
                f"{self.path}: expected {fps:g} frames per second, as info.json says, got "
                f"{1.0 / period_s if period_s else 0.0:.3g}; correct info.json or the video"
            )

    def frames(self, numbers: np.ndarray) -> Iterator[np.ndarray | None]:
        """Decode frames by their ``numbers`` (T,) in ``times_s``, which grow.

        Yields:
            (H, W, C) uint8 each; None where the number is negative or the frame is lost.
        """
        for number in numbers.tolist():
            yield None if number < 0 else self._at(int(self._ticks[number]))

    def first(self) -> np.ndarray:
        """Decode the first frame (H, W, 3); raises ``RecordingError`` where there is none."""
        frame = self._at(int(self._ticks[0])) if len(self._ticks) else None
        if frame is None:
            raise RecordingError(f"{self.path}: holds no frame that can be decoded")
        return frame

    def close(self) -> None:
        """Close the file; ``frames`` opens it again."""
        if self._container is not None:
            self._container.close()
        self._container, self._ahead, self._frames = None, None, iter(())

    def _at(self, tick: int) -> np.ndarray | None:
        if self._container is None or tick < self._passed:
            self._begin()
        while self._ahead is None or self._ahead.pts < tick:
            self._ahead = self._next()
            if self._ahead is None:
                return None
            self._passed = self._ahead.pts
        if self._ahead.pts != tick or self._ahead.is_corrupt:
            return None
        return self._pixels(self._ahead)

    def _pixels(self, frame: Any) -> np.ndarray:
        shape = self._shape
        if shape is not None and (frame.height, frame.width) != shape[:2]:
            raise RecordingError(
                f"{self.path}: expected frames of {shape.width}x{shape.height}, got "
                f"{frame.width}x{frame.height} at {float(frame.pts * self._tick_s):.3f} s; a "
                "camera must not change its size"
            )
        grey = shape is not None and shape.channels == 1
        pixels: np.ndarray = frame.to_ndarray(format="gray" if grey else "rgb24")
        return pixels[..., None] if grey else pixels

    def _begin(self) -> None:
        self.close()
        self._container, stream = self._opened()
        stream.thread_type = "AUTO"
        self._frames = iter(self._container.decode(stream))
        self._passed = -(2**63)

    def _next(self) -> Any:
        """Decode the next frame that has a time; None at the end."""
        try:
            return next((frame for frame in self._frames if frame.pts is not None), None)
        except self._av.error.FFmpegError as error:
            at = "its begin" if self._passed < 0 else f"{float(self._passed * self._tick_s):.3f} s"
            raise RecordingError(
                f"{self.path}: damaged behind {at}: {shown(error, 120)}"
            ) from None

    def _times(self) -> tuple[np.ndarray, float]:
        """Read the times of presentation of all frames, in ticks, and the length of a tick."""
        container, stream = self._opened()
        with container:
            ticks = set()
            with suppress(self._av.error.FFmpegError):  # what is torn off is missing, no more
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size:
                        ticks.add(int(packet.pts))
            return np.array(sorted(ticks), np.int64), float(stream.time_base)

    def _opened(self) -> tuple[Any, Any]:
        if not self.path.is_file():
            raise RecordingError(f"{self.path}: this video is missing")
        try:
            container = self._av.open(str(self.path))
        except (self._av.error.FFmpegError, OSError) as error:
            raise unreadable(self.path, "video", error) from None
        if not container.streams.video:
            container.close()
            raise RecordingError(f"{self.path}: holds no video")
        return container, container.streams.video[0]


def frame_numbers(
    times_s: np.ndarray, rows_s: np.ndarray, fps: float, span_s: tuple[float, float] | None
) -> np.ndarray:
    """Find the frame of each row.

    A span with as many frames as there are rows belongs to them one by one.  Otherwise each row
    gets the frame that is less than half a period away, and none where there is no such frame.

    Args:
        times_s: (n,) of all frames of the video.
        rows_s: (T,) of the rows since the begin of their episode.
        fps: rows per second.
        span_s: where in the video the episode is; None: it is all of it.

    Returns:
        (T,) numbers of frames, -1 where there is none.
    """
    near_s = 0.5 / fps
    begin_s, end_s = span_s or (float(times_s[0]) if len(times_s) else 0.0, np.inf)
    first = int(np.searchsorted(times_s, begin_s - near_s)) if span_s else 0
    last = int(np.searchsorted(times_s, end_s - near_s)) if span_s else len(times_s)
    if last - first == len(rows_s):
        return np.arange(first, last)
    if last <= first:
        return np.full(len(rows_s), -1)
    inside, wanted = times_s[first:last], begin_s + rows_s
    right = np.clip(np.searchsorted(inside, wanted), 1, max(1, len(inside) - 1))
    left = np.minimum(right, len(inside) - 1) - (len(inside) > 1)
    right = np.minimum(right, len(inside) - 1)
    nearest = np.where(wanted - inside[left] <= inside[right] - wanted, left, right)
    found = np.abs(inside[nearest] - wanted) < near_s
    return np.where(found, first + nearest, -1)

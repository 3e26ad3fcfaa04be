"""Writes the frames of one camera as mp4 files, episode behind episode; what is lost is lost."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.recordings.outgoing.lerobot.tables import NumberedFiles

FILE_BYTES = 200 << 20  #: beyond which the next episode begins another file
CODEC = "libx264"
OPTIONS = {"g": "2", "crf": "18", "preset": "veryfast"}  #: a whole picture at every second frame


class VideoFiles:
    """Encodes frames (H, W, 3) uint8 of one camera by H.264.

    Args:
        folder: ``videos/<feature>`` of the dataset.
        shape: (H, W, 3); an odd side keeps the colours of every pixel.
        fps: frames per second.
    """

    def __init__(self, folder: Path, shape: tuple[int, ...], fps: float) -> None:
        self.files = NumberedFiles(folder, ".mp4")
        self.pix_fmt = "yuv444p" if shape[0] % 2 or shape[1] % 2 else "yuv420p"
        self._shape, self._fps = shape, fps
        self._rate = Fraction(fps).limit_denominator(10_000)
        self._container: Any = None
        self._stream: Any = None
        self._frames = 0  # of the file that is open

    def begin(self) -> tuple[int, int, float]:
        """Begin an episode; gives chunk, file and the second at which its first frame stands."""
        full = self._container is not None and self.files.path.stat().st_size >= FILE_BYTES
        if self._container is None or full:
            import av

            self.close()
            self._container, self._frames = av.open(str(self.files.next()), "w"), 0
            self._stream = self._container.add_stream(CODEC, rate=self._rate, options=OPTIONS)
            self._stream.height, self._stream.width = self._shape[:2]
            self._stream.pix_fmt = self.pix_fmt
            self._stream.time_base = 1 / self._rate
        return (*self.files.place, self._frames / self._fps)

    def add(self, frame: np.ndarray) -> None:
        """Encode one frame (H, W, 3) uint8."""
        import av

        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
        picture.pts, picture.time_base = self._frames, 1 / self._rate
        self._container.mux(self._stream.encode(picture))
        self._frames += 1

    @property
    def end_s(self) -> float:
        """Second of the file at which the next frame will stand."""
        return self._frames / self._fps

    def info(self) -> dict[str, Any]:
        """Describe the video as ``meta/info.json`` does."""
        return {
            "video.height": self._shape[0],
            "video.width": self._shape[1],
            "video.codec": "h264",
            "video.pix_fmt": self.pix_fmt,
            "video.fps": self._fps,
            "video.channels": self._shape[2],
            "has_audio": False,
            "is_depth_map": False,
        }

    def close(self) -> None:
        """Finish the file that is open; a second call does nothing."""
        if self._container is not None:
            container, self._container = self._container, None
            container.mux(self._stream.encode())
            container.close()

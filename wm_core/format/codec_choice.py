"""Chooses how each camera's images are recorded: lossless, or as JPEG pictures where noise wins.

Noise does not compress: of a real camera's pixels lossless compression saves next to nothing,
where it takes a simulator's to a tenth.  Who records looks at two runs of frames at the beginning
of a session, and what is decided then holds for the session.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import zstandard

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.inputs import CodecRule
from wm_core.contract.spec import Spec
from wm_core.contract.step import Step
from wm_core.format.pictures import Codec, can_be_jpeg, encode_picture

log = logging.getLogger(__name__)

LEAST_GAIN = 3.0  #: of lossless compression, below which pictures are recorded

RUNS = (
    (16, 32),
    (48, 64),
)  #: steps that are looked at, as many at once as a chunk's block has; the first may be dark
_PICTURES = 4  # frames of a run that are encoded to see their size
_LEVEL = 3  # of zstd, as in a chunk


class CodecChoice:
    """Knows the codecs of a session's cameras, once there were frames enough to tell.

    Args:
        spec: of the steps.
        wanted: by camera; one that is not named is lossless.
        default: of the cameras that are not in ``wanted`` and may be pictures.

    Raises:
        SpecMismatch: where a camera is wanted as JPEG that cannot be, or Pillow is missing.
    """

    def __init__(
        self,
        spec: Spec,
        wanted: Mapping[str, CodecRule] | None = None,
        *,
        default: CodecRule = "zstd",
    ) -> None:
        chosen = {k: default for k, image in spec.images.items() if can_be_jpeg(image)}
        for name, codec in (wanted or {}).items():
            if name in chosen:
                chosen[name] = codec
            elif codec == "jpeg" and name in spec.images:
                raise SpecMismatch(
                    f"codec of {name!r}: expected zstd, as {spec.images[name].what} is no picture"
                )
        if any(codec != "zstd" for codec in chosen.values()):
            _load_pillow()
        self.codecs: dict[str, Codec] = {k: "jpeg" for k, v in chosen.items() if v == "jpeg"}
        self._watched = {k: v for k, v in chosen.items() if v != "jpeg"}
        self._images = spec.images
        self._frames: dict[str, list[np.ndarray]] = {k: [] for k in self._watched}
        self._raw = dict.fromkeys(self._watched, 0)
        self._lossless = dict.fromkeys(self._watched, 0)
        self._pictures = dict.fromkeys(self._watched, 0.0)
        self._seen = 0

    def look(self, step: Step) -> bool:
        """Look at the frames of the next step; True where ``codecs`` changed, for it and on."""
        if not self._watched:
            return False
        number, self._seen = self._seen, self._seen + 1
        if any(first <= number < end for first, end in RUNS):
            for name, frames in self._frames.items():
                frames.append(step.obs[name])
            if any(number == end - 1 for _, end in RUNS):
                self._measure()
        if number < RUNS[-1][1]:
            return False
        watched, self._watched, self._frames = self._watched, {}, {}
        return any([self._decide(name, wanted) for name, wanted in watched.items()])

    def _measure(self) -> None:
        """Compress a run of frames of each camera, as a chunk would."""
        for name, frames in self._frames.items():
            run = b"".join(frame.tobytes() for frame in frames)
            self._raw[name] += len(run)
            self._lossless[name] += len(zstandard.ZstdCompressor(level=_LEVEL).compress(run))
            if self._watched[name] == "auto":
                image, some = self._images[name], frames[:: len(frames) // _PICTURES]
                size = np.mean([len(encode_picture(frame, image)) for frame in some])
                self._pictures[name] += float(size) * len(frames)
            frames.clear()

    def _decide(self, name: str, wanted: CodecRule) -> bool:
        """Choose the codec of one camera; True where it is JPEG."""
        gain = self._raw[name] / max(1, self._lossless[name])
        if gain >= LEAST_GAIN:
            return False
        count = sum(end - first for first, end in RUNS)
        lossless = self._lossless[name] // count
        if wanted == "zstd":
            log.info(
                "camera %s is recorded without loss, %d bytes a frame, which compresses %.1f "
                "times; codec auto would record JPEG pictures", name, lossless, gain,
            )  # fmt: skip
            return False
        picture = int(self._pictures[name] / count)
        if picture >= lossless:
            return False
        self.codecs[name] = "jpeg"
        log.info(
            "camera %s is recorded as JPEG pictures, %d bytes a frame instead of %d: without loss "
            "it compresses %.1f times, less than %g", name, picture, lossless, gain, LEAST_GAIN,
        )  # fmt: skip
        return True


def _load_pillow() -> None:
    """Import what encodes pictures, before a control loop runs beside."""
    try:
        from PIL import Image
    except ImportError as error:
        raise SpecMismatch(
            "codec: JPEG needs Pillow: pip install pillow, or apt install python3-pil"
        ) from error
    Image.preinit()

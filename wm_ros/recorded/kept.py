"""Keeps the JPEG pictures of a bag that are stored as they are: those of the wanted size."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.spec import Obs
from wm_core.contract.step import Step
from wm_core.format.pictures import check_picture
from wm_core.robot import RobotFile
from wm_ros.sensors.compressed import CompressedCamera
from wm_ros.sensors.source import Source

_MOST = 8  # observations that wait for their step


class KeptPictures:
    """Brings steps the pictures that their images were decoded from.

    A picture is kept where the robot file says ``codec: jpeg`` or ``auto`` of its camera, its size
    is that of the input, and it is plain enough for a chunk.  Any other image is encoded anew, or
    recorded without loss.

    Args:
        file: says how cameras are recorded.
        sources: that are heard.
    """

    def __init__(self, file: RobotFile, sources: Iterable[Source]) -> None:
        images = file.spec().images
        self._images = {k: images[k] for k, codec in file.codecs.items() if codec != "zstd"}
        self._cameras = [s for s in sources if isinstance(s, CompressedCamera)]
        self._found: dict[int, dict[str, bytes]] = {}  # by the stamp of the observation

    def note(self, obs: Obs, stamp_ns: int) -> None:
        """Remember the pictures that ``obs`` has just been decoded from."""
        found = {}
        for name, image in self._images.items():
            for camera in self._cameras:
                if camera.unpacked is not None and camera.unpacked[0] is obs[name]:
                    with contextlib.suppress(ChunkRefused):
                        check_picture(camera.unpacked[1], image)
                        found[name] = camera.unpacked[1]
        if found:
            self._found[stamp_ns] = found
        while len(self._found) > _MOST:
            del self._found[next(iter(self._found))]

    def of(self, step: Step) -> dict[str, bytes] | None:
        """Give the pictures of the images of ``step``, by camera; None where there is none."""
        return self._found.pop(step.stamp_ns, None)

"""Tells a camera that repeats its last image from one that looks at a still scene; no ROS.

A real camera's noise changes a large share of the pixels by little, even of a still scene; a
camera that hangs changes none, or only those of a clock in the picture.  A simulated scene has no
noise: there equal images are honest as long as the robot stands.  So images that equal one another
count only while the robot was told to move.
"""

from __future__ import annotations

import numpy as np

from wm_core.contract.spec import Obs

CHANGED_SHARE = 0.005  #: of the numbers in an image: fewer that differ are no change


class Stillness:
    """Counts, camera by camera, how long the image has been the same.

    Args:
        frozen_s: seconds of the same image, while the robot is told to move; 0: no such check.
        frozen_frames: same images in a row, whether the robot moves or not; 0: no such check.
    """

    def __init__(self, *, frozen_s: float, frozen_frames: int) -> None:
        self._frozen_s, self._frozen_frames = frozen_s, frozen_frames
        self._cameras: dict[str, _Camera] = {}

    def use(self, *, frozen_s: float, frozen_frames: int) -> None:
        """Judge by changed numbers from now on."""
        self._frozen_s, self._frozen_frames = frozen_s, frozen_frames

    def reset(self) -> None:
        """Forget every image."""
        self._cameras = {}

    def frozen(self, obs: Obs, *, period_s: float, moving: bool) -> str | None:
        """Name a camera of ``obs`` that is frozen, or give None.

        Args:
            obs: images (H, W, C); vectors are passed over.
            period_s: since the last call.
            moving: whether the robot has been told to move since the last call.
        """
        if not (self._frozen_s or self._frozen_frames):
            return None
        found = None
        for name, image in obs.items():
            if image.ndim != 3:
                continue
            camera = self._cameras.setdefault(name, _Camera())
            if camera.changed(image):
                continue
            camera.frames += 1
            camera.moved_s += period_s if moving else 0.0
            by_time = 0.0 < self._frozen_s <= camera.moved_s + 1e-9
            if by_time or 0 < self._frozen_frames <= camera.frames:
                found = found or name
        return found


class _Camera:
    """Remembers the last image that differed, with which every one is compared."""

    def __init__(self) -> None:
        self._image: np.ndarray | None = None
        self.frames, self.moved_s = 1, 0.0

    def changed(self, image: np.ndarray) -> bool:
        before = self._image
        if before is not None and before.shape == image.shape:
            if before is image:
                return False
            if np.count_nonzero(before != image) <= CHANGED_SHARE * image.size:
                return False
        self._image, self.frames, self.moved_s = image, 1, 0.0
        return True

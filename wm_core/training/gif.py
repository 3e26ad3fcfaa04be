"""Encodes frames as animated GIFs, which every browser and every tracker shows."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image


def gif(frames: np.ndarray, *, fps: float) -> bytes:
    """Encode ``frames`` (N, H, W, 3) uint8 as an animated GIF that repeats."""
    return encode_gif([Image.fromarray(f).quantize(128) for f in frames], fps=fps)


def encode_gif(images: Sequence[Image.Image], *, fps: float) -> bytes:
    """Encode ``images``, each with a palette of its own, as an animated GIF that repeats."""
    out = io.BytesIO()
    pause_ms = max(20, round(1000 / fps))
    images[0].save(out, "GIF", save_all=True, append_images=images[1:], duration=pause_ms, loop=0)
    return out.getvalue()

"""Frames of a camera with a real sensor's noise, and steps that hold them."""

from __future__ import annotations

import hashlib
from uuid import uuid4

import numpy as np

from wm_core.contract.inputs import Depth
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk

SPEC = Spec(
    images={
        "image": ImageSpec(height=32, width=40),
        "wrist": ImageSpec(height=32, width=32, channels=1),
        "range": Depth(height=4, width=6),
    },
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)
JPEG = {"image": "jpeg", "wrist": "jpeg"}


def noisy_frame(number: int, image: ImageSpec, *, noise: float = 6.0) -> np.ndarray:
    """(H, W, C) uint8: a moving scene, and noise of that deviation in each pixel."""
    rng = np.random.default_rng(number)
    rows, cols = np.mgrid[0 : image.height, 0 : image.width]
    shade = 120 + 60 * np.sin((cols + number) / 9) + 40 * np.cos(rows / 7)
    frame = shade[..., None] + 10.0 * np.arange(image.channels)
    frame = frame + rng.normal(0, noise, image.shape) if noise else frame
    return np.clip(frame, 0, 255).astype(np.uint8)


def noisy_step(number: int, spec: Spec = SPEC, *, noise: float = 6.0, **changes) -> Step:
    """A step whose reward is its number."""
    obs = {
        key: np.full(image.shape, number % 5000, np.uint16)
        if image.dtype == np.uint16
        else noisy_frame(number, image, noise=noise)
        for key, image in spec.images.items()
    }
    fields = {
        "obs": obs,
        "action": np.zeros(1, np.float32),
        "reward": float(number),
        "is_first": number == 0,
        "is_last": False,
        "is_terminal": False,
        "stamp_ns": 10**9 + 50_000_000 * number,
    }
    return Step(**fields | changes)


def noisy_chunk(
    count: int = 20,
    *,
    first: int = 0,
    seq: int = 0,
    session: str = "",
    codecs=None,
    episode: int = 1000,
):
    """(key, data, sha256) of a chunk whose cameras in ``codecs`` are JPEG pictures."""
    key = ChunkKey("rover", session or uuid4().hex, seq)
    meta = ChunkMeta(**key._asdict(), spec=SPEC, first_step=first, steps=count)
    meta = meta.with_codecs(JPEG if codecs is None else codecs)
    steps = [
        noisy_step(n, is_first=n % episode == 0, is_last=n % episode == episode - 1)
        for n in range(first, first + count)
    ]
    data = encode_chunk(steps, meta)
    return key, data, hashlib.sha256(data).hexdigest()

"""Presets and sizes: each is a value of ``Config``, never a class."""

from __future__ import annotations

from wm_core.config import (
    BehaviorConfig,
    Config,
    OptimConfig,
    ReplayConfig,
    TrainConfig,
    WorldConfig,
)
from wm_core.contract.errors import SettingsError, nearest

#: size -> (deter, hidden, classes, depth, units); groups are always 32.
_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}


def _micro() -> Config:
    """DreamerV3 for two CPU cores.

    Deviates: learning rate, warm-up, batch, imagined starts and discount horizon, so that a few
    thousand updates on a laptop suffice; ten times the entropy, for at this learning rate the
    actor is sure of itself before the world model is right; strided convolutions, which cost a
    fifth; every other frame is reconstructed.
    """
    return Config(
        size="micro",
        world=WorldConfig(
            encoder="k4s2",
            depth=8,
            deter=256,
            hidden=128,
            groups=16,
            classes=16,
            units=128,
            recon_share=0.5,
            discount_horizon=100.0,
        ),
        behavior=BehaviorConfig(imag_starts=64, entropy=3e-3),
        optim=OptimConfig(lr=4e-4, warmup=100),
        replay=ReplayConfig(batch=16, length=16, cache_bytes=500_000_000),
        train=TrainConfig(prefill=300, replay_ratio=256.0),
    )


def dreamer_v3(size: str) -> Config:
    """DreamerV3 at one of its published sizes, or ``micro``."""
    if size == "micro":
        return _micro()
    deter, hidden, classes, depth, units = _SIZES[size]
    world = WorldConfig(deter=deter, hidden=hidden, classes=classes, depth=depth, units=units)
    return Config(size=size, world=world)


PRESETS = {"dreamer_v3": dreamer_v3}
SIZES = ("micro", *_SIZES)


def make(preset: str, size: str) -> Config:
    """The settings of ``preset`` at ``size``; raises ``SettingsError`` naming the nearest."""
    if preset not in PRESETS:
        raise SettingsError(nearest(preset, PRESETS, what="preset"))
    if size not in SIZES:
        raise SettingsError(nearest(size, SIZES, what="size"))
    return PRESETS[preset](size)

"""The size of every preset that two CPU cores can train in half an hour."""

from __future__ import annotations

from typing import Any

from wm_core.config import Config

MICRO_TRANSFORMER: dict[str, Any] = {
    "width": 128, "layers": 3, "heads": 4, "head": 32, "hidden": 256, "window": 32, "dropout": 0.0,
}  # fmt: skip


def changed(config: Config, **changes: dict[str, Any]) -> Config:
    """``config`` with single fields of its parts changed, and checked again."""
    values = config.model_dump()
    for part, fields in changes.items():
        for name, value in fields.items():
            inner = values[part][name]
            values[part][name] = inner | value if isinstance(value, dict) else value
    return Config.model_validate(values)


def micro(config: Config, **changes: dict[str, Any]) -> Config:
    """``config`` in a size that two CPU cores can train in half an hour.

    Deviates: networks, batch, imagined starts and prefill are small and the rates high; half of
    the frames are reconstructed; everything else stays the preset's own.
    """
    world = {
        "encoder": "k4s2", "depth": 8, "deter": 256, "hidden": 128, "groups": 16, "classes": 16,
        "units": 128, "recon_share": 0.5, "discount_horizon": 100.0,
        "head_layers": min(config.world.head_layers, 2),
    }  # fmt: skip
    behavior = {
        "imag_starts": 64, "units": None,
        "actor_layers": min(config.behavior.actor_layers, 3),
        "critic_layers": min(config.behavior.critic_layers, 3),
    }  # fmt: skip
    optim: dict[str, Any] = {"lr": 4e-4, "warmup": 100}
    if config.optim.kind == "adam" and config.behavior.learner == "actor_critic":
        # an actor as fast as its model saturates before that is right, and stays there
        optim["dynamics_lr"] = 6e-4 if config.optim.dynamics_lr else None
        optim |= {"lr": 6e-4, "actor_lr": 2e-4, "critic_lr": 4e-4, "decay": 0.0}
    recurrent = config.world.backbone == "gru"
    batch, length = (16, 16) if recurrent else (8, 32)
    replay = {"batch": batch, "length": length, "cache_bytes": 500_000_000, "online_queue": True}
    train = {"prefill": 300, "replay_ratio": 256.0}
    defaults: dict[str, dict[str, Any]] = {
        "world": world, "behavior": behavior, "optim": optim, "replay": replay, "train": train,
    }  # fmt: skip
    merged = {part: fields | changes.get(part, {}) for part, fields in defaults.items()}
    return changed(config.model_copy(update={"size": "micro"}), **merged)

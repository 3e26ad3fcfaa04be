"""Makes of any preset the size ``micro``, which two CPU cores can train in half an hour."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_core.config import Config

MICRO_TRANSFORMER: dict[str, Any] = {
    "width": 128, "layers": 3, "heads": 4, "head": 32, "hidden": 256, "window": 32, "dropout": 0.0,
}  # fmt: skip


def config_of(**values: Any) -> Config:
    """A ``Config`` of nested settings, named as in a settings file and checked."""
    return Config.model_validate(values)


def merged(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``values`` with ``changes``; mappings that stand in both are merged in turn."""
    inner = {
        name: merged(values[name], change)
        if isinstance(change, Mapping) and isinstance(values.get(name), Mapping)
        else change
        for name, change in changes.items()
    }
    return {**values, **inner}


def changed(config: Config, **changes: Mapping[str, Any]) -> Config:
    """``config`` with some fields changed, by room and name and nested, and validated again."""
    return Config.model_validate(merged(config.model_dump(), changes))


def micro(config: Config, **changes: Mapping[str, Any]) -> Config:
    """``config`` in size ``micro``, with ``changes`` beyond that.

    Deviates: networks, batch, imagined starts and prefill are small and the rates high; half of
    the frames are reconstructed, and vectors in units of their own variance; everything else stays
    the preset's own.
    """
    width, wide = 128, 256
    world = {
        "units": width, "encoder": {"kind": "k4s2", "depth": 8},
        "decoder": {"start": "mean"}, "recon": {"share": 0.5, "vector_variance": "measured"},
        "categorical": {"groups": 16, "classes": 16},
        "posterior": {"units": width}, "net": {"units": width},
        "heads": {"layers": min(config.world.heads.layers, 2)}, "discount_horizon": 100.0,
    }  # fmt: skip
    if config.world.backbone in ("gru", "lstm"):
        world[config.world.backbone] = {"deter": wide, "hidden": width}
    elif config.world.backbone == "ssm":
        world["ssm"] = {"deter": wide}
    behavior = {
        "imag_starts": 64, "units": None,
        "actor": {"layers": min(config.behavior.actor.layers, 3)},
        "critic": {"layers": min(config.behavior.critic.layers, 3)},
    }  # fmt: skip
    optim: dict[str, Any] = {"lr": 4e-4, "warmup": 100}
    if config.optim.kind == "adam" and config.behavior.learner == "actor_critic":
        # an actor as fast as its model saturates before that is right, and stays there
        optim["dynamics_lr"] = 6e-4 if config.optim.dynamics_lr else None
        optim |= {"lr": 6e-4, "actor_lr": 2e-4, "critic_lr": 4e-4, "decay": 0.0}
    batch, length = (16, 16) if config.world.recurrent else (8, 32)
    replay = {"batch": batch, "length": length, "cache_bytes": 500_000_000, "online_queue": True}
    # several episodes of most tasks; held, since a body with mass hardly answers to white noise
    train = {
        "prefill": 1000, "burst": 300, "replay_ratio": 256.0, "explore": {"hold": 4},
    }  # fmt: skip
    defaults: dict[str, dict[str, Any]] = {
        "world": world, "behavior": behavior, "optim": optim, "replay": replay, "train": train,
    }  # fmt: skip
    return changed(config.model_copy(update={"size": "micro"}), **merged(defaults, changes))

"""Systems with a GRU whose posterior is part of the recurrence: Dreamer and its successors."""

from __future__ import annotations

from typing import Any

from wm_core.config import Config
from wm_core.presets.micro import changed, config_of, micro

#: size -> (deter, hidden, classes, depth, units); groups are always 32.
V3_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}


def dreamer_v1(size: str) -> Config:
    """Dreamer (Hafner et al. 2020, arXiv:1912.01603): Gaussian RSSM, gradients through dynamics.

    Numbers: the authors' code, DeepMind Control.  Deviates: ELU in the convolutions too, which
    have ReLU there; the cell is DreamerV2's without its norm.
    """
    config = config_of(
        preset="dreamer_v1", size="paper",
        world=dict(
            norm="none", activation="elu", units=400, encoder=dict(kind="v1", depth=32),
            decoder=dict(pixels="linear"), recon=dict(scale=0.5), latent="gaussian",
            gaussian=dict(size=30, min_std=0.1), gru=dict(cell="plain", deter=200, hidden=200),
            posterior=dict(units=200), net=dict(layers=1, units=200),
            heads=dict(layers=2, reward="normal", cont=False), discount_horizon=100.0,
            fold_discount=False, kl=dict(rep_scale=1.0, free_nats=3.0, free_over="mean"),
        ),
        behavior=dict(
            gradient="dynamics", advantage="none", explore_noise=0.3,
            actor=dict(kind="tanh_normal", init_std=5.0, layers=4),
            critic=dict(layers=3, kind="normal", target_network="none", replay_scale=0.0),
            entropy=dict(scale=0.0),
        ),
        optim=dict(kind="adam", lr=6e-4, actor_lr=8e-5, critic_lr=8e-5, warmup=0, eps=1e-7),
        replay=dict(batch=50, length=50, online_queue=False),
        train=dict(prefill=5000, burst=100, replay_ratio=500.0),
    )  # fmt: skip
    return config if size == "paper" else micro(config)


def dreamer_v2(size: str) -> Config:
    """DreamerV2 (Hafner et al. 2021, arXiv:2010.02193): categorical latents, KL balancing.

    Numbers: the authors' code, DeepMind Control from pixels.  The weights of a dream begin with
    the recorded end where ends are predicted (``--world.heads.cont``).
    """
    config = config_of(
        preset="dreamer_v2", size="paper",
        world=dict(
            norm="none", activation="elu", units=400, encoder=dict(kind="v1", depth=48),
            decoder=dict(pixels="linear"), recon=dict(scale=0.5),
            categorical=dict(groups=32, classes=32, unimix=0.0),
            gru=dict(cell="layer_norm", deter=200, hidden=200), posterior=dict(units=200),
            net=dict(layers=1, units=200), heads=dict(layers=4, reward="normal", cont=False),
            discount_horizon=100.0, fold_discount=False,
            kl=dict(dyn_scale=0.8, rep_scale=0.2, free_over="mean"),
        ),
        behavior=dict(
            gradient="auto", advantage="none", start_weight="recorded",
            actor=dict(kind="truncated_normal", layers=4, unimix=0.0),
            critic=dict(layers=4, kind="normal", target_network="bootstrap", target_rate=1.0,
                target_every=100, replay_scale=0.0),
            entropy=dict(scale=1e-4),
        ),
        optim=dict(
            kind="adam", lr=3e-4, actor_lr=8e-5, critic_lr=8e-5, warmup=0, eps=1e-5, decay=1e-6,
            decay_by_rate=False,
        ),
        replay=dict(batch=16, length=50, online_queue=False),
        train=dict(prefill=1000, burst=100, replay_ratio=160.0),
    )  # fmt: skip
    return config if size == "paper" else micro(config)


def dreamer_v3(size: str) -> Config:
    """DreamerV3 (Hafner et al. 2025, Nature, arXiv:2301.04104): one set of numbers for all tasks.

    Numbers: the authors' code of the Nature paper; ``paper`` is their 12m.  ``micro`` deviates in
    learning rate, warm-up, batch, imagined starts and discount horizon, so that a few thousand
    updates on a laptop suffice; ten times the entropy, for at this learning rate the actor is sure
    of itself before the world model is right; strided convolutions, which cost a fifth; every
    other frame is reconstructed; choices keep a share of uniform, which the code's do not.
    """
    if size == "micro":
        return micro(
            Config(preset="dreamer_v3", size="micro"), behavior={"entropy": {"scale": 3e-3}}
        )
    deter, hidden, classes, depth, units = V3_SIZES["12m" if size == "paper" else size]
    return config_of(
        preset="dreamer_v3", size=size,
        world=dict(
            units=units, encoder=dict(depth=depth), categorical=dict(classes=classes),
            gru=dict(deter=deter, hidden=hidden), posterior=dict(units=hidden),
            net=dict(units=hidden),
        ),
        behavior=dict(actor=dict(unimix=0.0)),
    )  # fmt: skip


def daydreamer(size: str) -> Config:
    """DayDreamer (Wu et al. 2022, arXiv:2206.14176): DreamerV2 on robots, scales that adapt.

    Numbers: the authors' code, arm and Sphero; beside a robot the learner runs by itself
    (``wm train --follow``).  Deviates: weights and biases decay alike; the replay ratio has a cap,
    which the code lacks.
    """
    config = config_of(
        preset="daydreamer", size="paper",
        world=dict(
            norm="layer", activation="elu", units=512,
            encoder=dict(kind="k4s2", depth=64, vector_layers=4), decoder=dict(pixels="sigmoid"),
            categorical=dict(groups=32, classes=32),
            gru=dict(cell="layer_norm", deter=512, hidden=512), posterior=dict(units=512),
            net=dict(layers=3, units=512), heads=dict(layers=4, reward="symlog", reward_scale=2.0),
            discount_horizon=200.0, fold_discount=False,
            kl=dict(dyn_scale=0.8, rep_scale=0.2, free_nats=0.0, target=3.5),
        ),
        behavior=dict(
            gradient="auto", advantage="std", baseline="attached", start_weight="recorded",
            actor=dict(layers=4, unimix=0.1, std_shift=0.0),
            critic=dict(layers=4, kind="symlog", target_network="bootstrap", target_rate=1.0,
                target_every=100, scale=2.0, replay_scale=0.0),
            entropy=dict(scale=1.0, rule="adaptive", target=0.4),
        ),
        optim=dict(
            kind="adam", lr=1e-4, actor_lr=1e-4, critic_lr=1e-4, warmup=0, eps=1e-6, decay=1e-2,
        ),
        replay=dict(batch=32, length=32),
        train=dict(prefill=1000, replay_ratio=512.0),
    )  # fmt: skip
    return config if size == "paper" else micro(config)


def r2dreamer(size: str) -> Config:
    """R2-Dreamer (ICLR 2026, arXiv:2603.18202): DreamerV3 without a decoder.

    Numbers: the authors' code, their 12m.  ``micro`` deviates beyond ``dreamer_v3``'s: a world
    model that learns 2.5 times as fast, all rates falling after 1,000 updates, a third of the
    entropy, a horizon of 50 steps, and more steps for each update.  A decoder that only shows what
    latents hold: ``--world.decoder.kind detached``.
    """
    base = dreamer_v3(size).model_copy(update={"preset": "r2dreamer"})
    world: dict[str, Any] = {"objective": "barlow", "decoder": {"kind": "none"}}
    if size == "micro":
        return changed(
            base, world=world | {"discount_horizon": 50.0},
            behavior={"entropy": {"scale": 1e-3}, "actor": {"unimix": 0.01}},
            optim={"lr": 1e-3, "actor_lr": 4e-4, "critic_lr": 4e-4, "decay_after": 1000},
            train={"prefill": 5000, "replay_ratio": 64.0, "explore": {"hold": 2}},
        )  # fmt: skip
    return changed(base, world=world, behavior={"actor": {"unimix": 0.01}})

"""Presets and sizes: each is a value of ``Config``, never a class.

``paper`` is the size of the paper or of the authors' code, ``micro`` one for two CPU cores.
``docs/algorithms`` has a page for each with the source of every number and what deviates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from wm_core.config import (
    BehaviorConfig,
    Config,
    EvolutionConfig,
    OptimConfig,
    ReplayConfig,
    SSMConfig,
    TrainConfig,
    TransformerConfig,
    WorldConfig,
)
from wm_core.contract.errors import SettingsError, nearest

#: size -> (deter, hidden, classes, depth, units); groups are always 32.
_V3_SIZES: dict[str, tuple[int, int, int, int, int]] = {
    "1m": (512, 64, 4, 4, 64),
    "12m": (2048, 256, 16, 16, 256),
    "25m": (3072, 384, 24, 24, 384),
    "50m": (4096, 512, 32, 32, 512),
    "100m": (6144, 768, 48, 48, 768),
    "200m": (8192, 1024, 64, 64, 1024),
    "400m": (12288, 1536, 96, 96, 1536),
}


def _with(config: Config, **changes: dict[str, Any]) -> Config:
    """``config`` with single fields of its parts changed, and checked again."""
    values = config.model_dump()
    for part, fields in changes.items():
        for name, value in fields.items():
            inner = values[part][name]
            values[part][name] = inner | value if isinstance(value, dict) else value
    return Config.model_validate(values)


def world_models(size: str) -> Config:
    """World Models (Ha and Schmidhuber 2018, arXiv:1803.10122): VAE, MDN-RNN, linear controller.

    Numbers: the paper's car racing, appendix A, and the authors' code; dream and temperature: its
    Doom.  Deviates: one window serves VAE and RNN, so it is shorter than 999 steps; the gradient
    is clipped by norm, not by value; a reward is predicted, so that dreams can be scored.
    """
    config = Config(
        preset="world_models",
        size="paper",
        world=WorldConfig(
            norm="none", activation="relu", units=256, encoder="v1", depth=32,
            decoder_reads="stoch", latent="gaussian", gaussians=32, latent_min_std=1e-3,
            backbone="lstm", deter=256, hidden=256, posterior_layers=0, prior="mdn", mixtures=5,
            head_layers=1, reward_head="normal", fold_discount=False, cont_scale=10.0,
            gradients="staged", rep="unit", rep_scale=1.0, free_nats=16.0,
            discount_horizon=1000.0,
        ),
        behavior=BehaviorConfig(
            learner="evolution", imag_horizon=500,
            evolution=EvolutionConfig(population=64, sigma=0.1, rollouts=16, temperature=1.15),
        ),
        optim=OptimConfig(
            kind="adam", lr=1e-4, dynamics_lr=1e-3, warmup=0, clip=1.0, eps=1e-8,
            stages=(20_000, 4_000),
        ),
        replay=ReplayConfig(batch=100, length=32, online_queue=False),
        train=TrainConfig(prefill=10_000, replay_ratio=1000.0),
    )  # fmt: skip
    if size == "paper":
        return config
    return _micro(
        config,
        world={"gaussians": 24, "free_nats": 12.0, "deter": 128, "head_layers": 2},
        behavior={"imag_horizon": 40, "explore_noise": 0.3,
                  "evolution": {"population": 32, "rollouts": 8, "every": 4, "sigma": 0.3}},
        optim={"lr": 1e-3, "dynamics_lr": 1e-3, "stages": (400, 400)},
        train={"prefill": 1000},
    )  # fmt: skip


def dreamer_v1(size: str) -> Config:
    """Dreamer (Hafner et al. 2020, arXiv:1912.01603): Gaussian RSSM, gradients through dynamics.

    Numbers: the authors' code, DeepMind Control.  Deviates: ELU in the convolutions too, which
    have ReLU there; the cell is DreamerV2's without its norm.
    """
    config = Config(
        preset="dreamer_v1",
        size="paper",
        world=WorldConfig(
            norm="none", activation="elu", units=400, encoder="v1", depth=32, pixels="linear",
            recon_scale=0.5, latent="gaussian", gaussians=30, latent_min_std=0.1,
            cell="plain", deter=200, hidden=200, prior_layers=1, head_layers=2,
            reward_head="normal", cont=False, discount_horizon=100.0, fold_discount=False,
            rep_scale=1.0, free_nats=3.0, free_over="mean",
        ),
        behavior=BehaviorConfig(
            gradient="dynamics", action="tanh_normal", init_std=5.0, actor_layers=4,
            critic_layers=3, entropy=0.0, advantage="none", critic="normal", slow="none",
            replay_value_scale=0.0, explore_noise=0.3,
        ),
        optim=OptimConfig(
            kind="adam", lr=6e-4, actor_lr=8e-5, critic_lr=8e-5, warmup=0, eps=1e-7,
        ),
        replay=ReplayConfig(batch=50, length=50, online_queue=False),
        train=TrainConfig(prefill=5000, replay_ratio=500.0),
    )  # fmt: skip
    return config if size == "paper" else _micro(config, world={"gaussians": 30})


def dreamer_v2(size: str) -> Config:
    """DreamerV2 (Hafner et al. 2021, arXiv:2010.02193): categorical latents, KL balancing.

    Numbers: the authors' code, DeepMind Control from pixels.
    """
    config = Config(
        preset="dreamer_v2",
        size="paper",
        world=WorldConfig(
            norm="none", activation="elu", units=400, encoder="v1", depth=48, pixels="linear",
            recon_scale=0.5, groups=32, classes=32, unimix=0.0, cell="layer_norm", deter=200,
            hidden=200, prior_layers=1, head_layers=4, reward_head="normal", cont=False,
            discount_horizon=100.0, fold_discount=False, dyn_scale=0.8, rep_scale=0.2,
            free_over="mean",
        ),
        behavior=BehaviorConfig(
            gradient="auto", action="truncated_normal", actor_layers=4, critic_layers=4,
            unimix=0.0, entropy=1e-4, advantage="none", critic="normal", slow="target",
            slow_rate=1.0, slow_every=100, replay_value_scale=0.0,
        ),
        optim=OptimConfig(
            kind="adam", lr=3e-4, actor_lr=8e-5, critic_lr=8e-5, warmup=0, eps=1e-5, decay=1e-6,
        ),
        replay=ReplayConfig(batch=16, length=50, online_queue=False),
        train=TrainConfig(prefill=1000, replay_ratio=160.0),
    )  # fmt: skip
    return config if size == "paper" else _micro(config)


def dreamer_v3(size: str) -> Config:
    """DreamerV3 (Hafner et al. 2025, Nature, arXiv:2301.04104): one set of numbers for all tasks.

    Numbers: the authors' code of the Nature paper; ``paper`` is their 12m.  ``micro`` deviates in
    learning rate, warm-up, batch, imagined starts and discount horizon, so that a few thousand
    updates on a laptop suffice; ten times the entropy, for at this learning rate the actor is sure
    of itself before the world model is right; strided convolutions, which cost a fifth; every
    other frame is reconstructed.
    """
    if size == "micro":
        return _micro(Config(preset="dreamer_v3", size="micro"), behavior={"entropy": 3e-3})
    deter, hidden, classes, depth, units = _V3_SIZES["12m" if size == "paper" else size]
    world = WorldConfig(deter=deter, hidden=hidden, classes=classes, depth=depth, units=units)
    return Config(preset="dreamer_v3", size=size, world=world)


def transdreamer(size: str) -> Config:
    """TransDreamer (Chen et al. 2022, arXiv:2202.09481): the TSSM, actor through the dynamics.

    Numbers: the authors' code.  Deviates: a learned bias by age instead of absolute sinusoids,
    which go on counting past anything seen in training; the actor learns by gradients through
    the differentiable reward, as the paper describes it (the code has REINFORCE:
    ``--behavior.gradient reinforce``); ten imagined steps from one random time of each window.
    """
    config = Config(
        preset="transdreamer",
        size="paper",
        world=WorldConfig(
            norm="none", activation="elu", units=400, encoder="v1", depth=48, pixels="linear",
            recon_scale=0.5, groups=32, classes=32, unimix=0.0, backbone="transformer",
            hidden=600, posterior_layers=1, prior_layers=1, head_layers=4,
            transformer=TransformerConfig(
                width=600, layers=6, heads=8, head=64, hidden=1024, window=50,
                activation="relu", readout="all", dropout=0.1,
            ),
            reward_head="normal", reward_squash="tanh", discount_horizon=1000.0,
            fold_discount=False, cont_scale=5.0, dyn_scale=0.08, rep_scale=0.02, free_nats=0.0,
        ),
        behavior=BehaviorConfig(
            gradient="dynamics", action="truncated_normal", imag_horizon=10, imag_starts=50,
            actor_layers=4, critic_layers=4, unimix=0.0, entropy=1e-3, advantage="none",
            critic="normal", slow="target", slow_rate=1.0, slow_every=100,
            replay_value_scale=0.0,
        ),
        optim=OptimConfig(
            kind="adam", lr=2e-4, actor_lr=4e-5, critic_lr=1e-4, warmup=0, eps=1e-5, decay=1e-6,
        ),
        replay=ReplayConfig(batch=50, length=50, online_queue=False),
        train=TrainConfig(prefill=50_000, replay_ratio=156.0),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = _MICRO_TRANSFORMER | {"readout": "all"}
    return _micro(config, world={"transformer": transformer, "dyn_scale": 0.8, "rep_scale": 0.2,
                                 "free_nats": 1.0})  # fmt: skip


def twm(size: str) -> Config:
    """TWM (Robine et al. 2023, arXiv:2303.07109): z, action and reward as tokens; actor on z.

    Numbers: the authors' code, Atari 100k.  Deviates: no frames are stacked; windows are drawn
    uniformly, not by how rarely they were drawn; one loop trains all parts, so the code's sample
    budget is a replay ratio here.
    """
    config = Config(
        preset="twm",
        size="paper",
        world=WorldConfig(
            norm="none", activation="silu", units=512, encoder="v1", depth=48, pixels="linear",
            decoder_reads="stoch", groups=32, classes=32, unimix=0.0, backbone="transformer",
            hidden=512, posterior_layers=2, prior_layers=4,
            transformer=TransformerConfig(
                width=256, layers=10, heads=4, head=64, hidden=1024, window=51, order="post",
                positions="xl", dropout=0.1, tokens="split",
            ),
            heads_read="deter", head_layers=4, reward_head="normal", reward_squash="tanh",
            reward_scale=10.0, discount_horizon=100.0, fold_discount=False, cont_scale=50.0,
            gradients="staged", recon_scale=0.5, rep="consistency", rep_scale=0.01,
            free_nats=0.0, entropy_scale=5.0, entropy_floor=0.1,
        ),
        behavior=BehaviorConfig(
            reads="stoch", imag_starts=400, actor_layers=4, critic_layers=4, unimix=0.0,
            entropy=0.01, entropy_rule="hinge", entropy_target=0.1, advantage="none",
            critic="normal", slow="none", replay_value_scale=0.0,
        ),
        optim=OptimConfig(
            kind="adam", lr=1e-4, actor_lr=1e-4, critic_lr=1e-5, warmup=0, behavior_clip=1.0,
            eps=1e-5, decay=1e-6,
        ),
        replay=ReplayConfig(batch=100, length=16, online_queue=False),
        train=TrainConfig(prefill=5000, replay_ratio=256.0),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = _MICRO_TRANSFORMER | {"window": 48}
    return _micro(
        config,
        world={"transformer": transformer, "prior_layers": 2, "head_layers": 2},
        replay={"batch": 16, "length": 16},
    )


def awm(size: str) -> Config:
    """Actions World Models (Ma et al. 2024, arXiv:2402.05290): start and actions say it all.

    The authors' numbers are not public: sizes, rates and losses are TWM's and DreamerV3's, chosen
    here.  Deviates: the paper's states are vectors that are known; here they are latents of a
    camera, and the actor reads the newest one alone.
    """
    config = Config(
        preset="awm",
        size="paper",
        world=WorldConfig(
            units=512, encoder="k4s2", depth=32, decoder_reads="stoch", groups=32, classes=32,
            backbone="transformer", hidden=512,
            transformer=TransformerConfig(
                width=256, layers=4, heads=4, head=64, hidden=1024, window=64,
                positions="sinusoid", tokens="actions",
            ),
            heads_read="deter", head_layers=2, discount_horizon=100.0, fold_discount=False,
        ),
        behavior=BehaviorConfig(
            reads="stoch", gradient="dynamics", imag_starts=256, replay_value_scale=0.0,
        ),
        optim=OptimConfig(kind="adam", lr=1e-4, actor_lr=3e-5, critic_lr=3e-5, eps=1e-8),
        replay=ReplayConfig(batch=32, length=32, online_queue=False),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = _MICRO_TRANSFORMER | {"positions": "sinusoid"}
    return _micro(config, world={"transformer": transformer})


def daydreamer(size: str) -> Config:
    """DayDreamer (Wu et al. 2022, arXiv:2206.14176): DreamerV2 on robots, scales that adapt.

    Numbers: the authors' code, arm and Sphero; beside a robot the learner runs by itself
    (``wm train --follow``).  Deviates: weights and biases decay alike; the replay ratio has a cap,
    which the code lacks.
    """
    config = Config(
        preset="daydreamer",
        size="paper",
        world=WorldConfig(
            norm="layer", activation="elu", units=512, encoder="k4s2", depth=64,
            vector_layers=4, pixels="linear", groups=32, classes=32, cell="layer_norm",
            deter=512, hidden=512, prior_layers=3, head_layers=4, reward_head="symlog",
            discount_horizon=200.0, fold_discount=False, dyn_scale=0.8, rep_scale=0.2,
            free_nats=0.0, kl_target=3.5,
        ),
        behavior=BehaviorConfig(
            gradient="auto", actor_layers=4, critic_layers=4, unimix=0.1, entropy=1e-3,
            entropy_rule="adaptive", entropy_target=0.4, advantage="std", critic="symlog",
            slow="target", slow_rate=1.0, slow_every=100, replay_value_scale=0.0,
        ),
        optim=OptimConfig(
            kind="adam", lr=1e-4, actor_lr=1e-4, critic_lr=1e-4, warmup=0, eps=1e-6, decay=1e-2,
        ),
        replay=ReplayConfig(batch=32, length=32),
        train=TrainConfig(prefill=1000, replay_ratio=512.0),
    )  # fmt: skip
    return config if size == "paper" else _micro(config)


def s4wm(size: str) -> Config:
    """S4WM (Deng et al. 2023, arXiv:2307.02064): a state-space backbone, scan and recurrence.

    Numbers: R2I's code (Samsami et al. 2024, arXiv:2403.04253), which is DreamerV3's with the
    state-space model of S5.  Deviates: real arithmetic throughout, so that it exports.
    """
    config = Config(
        preset="s4wm",
        size="paper",
        world=WorldConfig(
            norm="layer", units=512, encoder="k4s2", depth=32, groups=32, classes=32,
            backbone="ssm", deter=512, hidden=128, head_layers=2, dyn_scale=0.5, rep_scale=0.1,
            ssm=SSMConfig(state=512, layers=4, blocks=8),
        ),
        behavior=BehaviorConfig(imag_starts=1024),
        optim=OptimConfig(
            kind="adam", lr=1e-4, actor_lr=3e-5, critic_lr=3e-5, clip=1000.0, eps=1e-8,
        ),
        replay=ReplayConfig(batch=4, length=1024),
    )  # fmt: skip
    if size == "paper":
        return config
    return _micro(
        config,
        world={"ssm": {"state": 128, "layers": 2, "blocks": 4}, "deter": 256, "hidden": 128},
        behavior={"entropy": 3e-3},
    )


def r2dreamer(size: str) -> Config:
    """R2-Dreamer (ICLR 2026, arXiv:2603.18202): DreamerV3 without a decoder.

    Numbers: the authors' code, their 12m.  A decoder that only watches: ``--world.decoder
    detached``.
    """
    base = dreamer_v3("micro" if size == "micro" else "paper" if size == "paper" else size)
    return _with(
        base.model_copy(update={"preset": "r2dreamer"}),
        world={"objective": "barlow", "decoder": "none"},
    )


# ------------------------------------------------------------------------------------ micro

_MICRO_TRANSFORMER: dict[str, Any] = {
    "width": 128, "layers": 3, "heads": 4, "head": 32, "hidden": 256, "window": 32, "dropout": 0.0,
}  # fmt: skip


def _micro(config: Config, **changes: dict[str, Any]) -> Config:
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
        optim |= {"lr": 6e-4, "actor_lr": 2e-4, "critic_lr": 2e-4, "decay": 0.0}
    recurrent = config.world.backbone == "gru"
    batch, length = (16, 16) if recurrent else (8, 32)
    replay = {"batch": batch, "length": length, "cache_bytes": 500_000_000, "online_queue": True}
    train = {"prefill": 300, "replay_ratio": 256.0}
    defaults = {
        "world": world, "behavior": behavior, "optim": optim, "replay": replay, "train": train,
    }  # fmt: skip
    merged = {part: fields | changes.get(part, {}) for part, fields in defaults.items()}
    return _with(config.model_copy(update={"size": "micro"}), **merged)


# ------------------------------------------------------------------------------------ by name

PRESETS: dict[str, Callable[[str], Config]] = {
    "world_models": world_models,
    "dreamer_v1": dreamer_v1,
    "dreamer_v2": dreamer_v2,
    "dreamer_v3": dreamer_v3,
    "transdreamer": transdreamer,
    "twm": twm,
    "awm": awm,
    "daydreamer": daydreamer,
    "s4wm": s4wm,
    "r2dreamer": r2dreamer,
}
_FAMILY = ("dreamer_v3", "r2dreamer")  #: presets that have V3's sizes too
SIZES = ("micro", "paper", *_V3_SIZES)


def sizes_of(preset: str) -> tuple[str, ...]:
    """The sizes that ``preset`` comes in."""
    return SIZES if preset in _FAMILY else ("micro", "paper")


def make(preset: str, size: str) -> Config:
    """The settings of ``preset`` at ``size``; raises ``SettingsError`` naming the nearest."""
    if preset not in PRESETS:
        raise SettingsError(nearest(preset, PRESETS, what="preset"))
    if size not in sizes_of(preset):
        raise SettingsError(nearest(size, sizes_of(preset), what=f"size of {preset}"))
    return PRESETS[preset](size)


class Row(NamedTuple):
    """The six choices that make up a system, and how it is trained."""

    representation: str
    latent: str
    backbone: str
    posterior: str
    behavior: str
    reads: str  #: what of the latent the actor reads
    training: str


def row_of(config: Config) -> Row:
    """The parts of ``config`` in a few words each."""
    world, behavior = config.world, config.behavior
    latent = (
        f"gaussian {world.gaussians}"
        if world.latent == "gaussian"
        else f"categorical {world.groups}x{world.classes}"
    )
    backbone = world.backbone
    if backbone == "transformer":
        part = world.transformer
        backbone += f" {part.layers}x{part.width}, {part.tokens} tokens"
    elif backbone == "ssm":
        backbone += f" {world.ssm.layers}x{world.deter}"
    else:
        backbone += f" {world.deter}" + (f", {world.cell}" if backbone == "gru" else "")
    learner = "CMA-ES" if behavior.learner == "evolution" else behavior.gradient
    training = f"{world.gradients}, {config.optim.kind}"
    return Row(
        representation=world.objective,
        latent=latent + (", mdn prior" if world.prior == "mdn" else ""),
        backbone=backbone,
        posterior="q(z|h,e)" if world.backbone == "gru" else "q(z|e)",
        behavior=learner,
        reads=behavior.reads,
        training=training + (", stages" if config.optim.stages else ""),
    )

"""Presets of systems whose posterior reads no past: transformers, state-space layers, an LSTM."""

from __future__ import annotations

from wm_core.config import Config
from wm_core.presets.micro import MICRO_TRANSFORMER, config_of, micro


def world_models(size: str) -> Config:
    """World Models (Ha and Schmidhuber 2018, arXiv:1803.10122): VAE, MDN-RNN, linear controller.

    Numbers: the paper's car racing, appendix A, and the authors' code; dream and temperature: its
    Doom.  Deviates: one window serves VAE and RNN, so it is shorter than 999 steps; the gradient
    is clipped by norm, not by value; a reward is predicted, so that imagination can be scored.
    """
    config = config_of(
        preset="world_models", size="paper",
        world=dict(
            norm="none", activation="relu", encoder=dict(kind="v1", depth=32),
            decoder=dict(reads="stoch"), latent="gaussian", gaussian=dict(size=32, min_std=1e-3),
            backbone="lstm", lstm=dict(deter=256, hidden=256), posterior=dict(layers=0),
            prior="mdn", gradients="staged", heads=dict(reward="normal", cont_scale=10.0),
            discount_horizon=1000.0, fold_discount=False,
            kl=dict(rep="unit", rep_scale=1.0, free_nats=16.0),
        ),
        behavior=dict(
            learner="evolution", imag_horizon=500,
            evolution=dict(population=64, sigma=0.1, rollouts=16, temperature=1.15),
        ),
        optim=dict(
            kind="adam", lr=1e-4, dynamics_lr=1e-3, warmup=0, clip=1.0, eps=1e-8,
            stages=(20_000, 4_000),
        ),
        replay=dict(batch=100, length=32, online_queue=False),
        train=dict(steps=10_000_000, prefill=10_000_000, replay_ratio=1000.0),
    )  # fmt: skip
    if size == "paper":
        return config
    return micro(
        config,
        world={"gaussian": {"size": 24}, "kl": {"free_nats": 12.0}, "heads": {"layers": 2},
               "lstm": {"deter": 128}},
        behavior={"imag_horizon": 40, "explore_noise": 0.3,
                  "evolution": {"population": 32, "rollouts": 8, "every": 4, "sigma": 0.3}},
        optim={"lr": 1e-3, "dynamics_lr": 1e-3, "stages": (400, 400)},
        train={"burst": None},  # its first stages learn from random actions alone
    )  # fmt: skip


def transdreamer(size: str) -> Config:
    """TransDreamer (Chen et al. 2022, arXiv:2202.09481): the TSSM, actor through the dynamics.

    Numbers: the authors' code.  Deviates: a learned bias by age instead of absolute sinusoids,
    which go on counting past anything seen in training; the actor learns by gradients through
    the differentiable reward, as this project set out to (the code has REINFORCE:
    ``--behavior.gradient reinforce``); 43 imagined steps from one random time of each window, the
    mean of the code's 37 to 49.  ``micro`` imagines ten, and has unit normals of pixels.
    """
    config = config_of(
        preset="transdreamer", size="paper",
        world=dict(
            norm="none", activation="elu", units=400, encoder=dict(kind="v1", depth=48),
            decoder=dict(pixels="linear"), recon=dict(scale=0.5 / 0.3**2),
            categorical=dict(groups=32, classes=32, unimix=0.0), posterior=dict(units=600),
            net=dict(layers=1, units=600), backbone="transformer",
            transformer=dict(width=600, layers=6, heads=8, head=64, hidden=1024, window=50,
                activation="relu", readout="all", dropout=0.1),
            heads=dict(layers=4, reward="normal", squash="tanh", cont_scale=5.0),
            discount_horizon=1000.0, fold_discount=False,
            kl=dict(dyn_scale=0.08, rep_scale=0.02, free_nats=0.0),
        ),
        behavior=dict(
            gradient="dynamics", imag_horizon=43, imag_starts=50, advantage="none",
            actor=dict(kind="truncated_normal", layers=4, unimix=0.0),
            critic=dict(layers=4, kind="normal", target_network="bootstrap", target_rate=1.0,
                target_every=100, replay_scale=0.0),
            entropy=dict(scale=1e-3),
        ),
        optim=dict(
            kind="adam", lr=2e-4, actor_lr=4e-5, critic_lr=1e-4, warmup=0, eps=1e-5, decay=1e-6,
        ),
        replay=dict(batch=50, length=50, online_queue=False),
        train=dict(prefill=50_000, replay_ratio=156.0),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = MICRO_TRANSFORMER | {"readout": "all"}
    kl = {"dyn_scale": 0.8, "rep_scale": 0.2, "free_nats": 1.0}
    return micro(
        config,
        world={"transformer": transformer, "kl": kl, "recon": {"scale": 0.5}},
        behavior={"imag_horizon": 10},
    )


def twm(size: str) -> Config:
    """TWM (Robine et al. 2023, arXiv:2303.07109): z, action and reward as tokens; actor on z.

    Numbers: the authors' code, Atari 100k.  Deviates: no frames are stacked; one loop trains all
    parts, so the code's sample budget is a replay ratio here: about 125,000 updates over 95,000
    steps.
    """
    config = config_of(
        preset="twm", size="paper",
        world=dict(
            norm="none", activation="silu", units=512, encoder=dict(kind="v1", depth=48),
            decoder=dict(reads="stoch", pixels="linear"), recon=dict(scale=0.5),
            categorical=dict(groups=32, classes=32, unimix=0.0),
            posterior=dict(layers=2, units=512), net=dict(layers=4, units=512),
            backbone="transformer",
            transformer=dict(width=256, layers=10, heads=4, head=64, hidden=1024, window=51,
                order="post", positions="xl", dropout=0.1, tokens="split", token_activation=True,
                score_scale="width"),
            heads=dict(reads="deter", layers=4, reward="normal", squash="tanh", reward_scale=10.0,
                cont_scale=50.0),
            discount_horizon=100.0, fold_discount=False, gradients="staged",
            kl=dict(rep="consistency", rep_scale=0.01, free_nats=0.0),
            entropy=dict(scale=5.0, floor=0.1, over="mean"), acting="mode",
        ),
        behavior=dict(
            reads="stoch", imag_starts=400, advantage="none", start_weight="recorded",
            actor=dict(layers=4, unimix=0.0),
            critic=dict(layers=4, kind="normal", target_network="none", replay_scale=0.0),
            entropy=dict(scale=0.01, rule="hinge", target=0.1, over="mean"),
        ),
        optim=dict(
            kind="adam", lr=1e-4, dynamics_lr=1e-4, actor_lr=1e-4, critic_lr=1e-5, warmup=0,
            behavior_clip=1.0, eps=1e-5, decay=1e-6,
        ),
        replay=dict(batch=100, length=16, online_queue=False, selector="balanced"),
        train=dict(prefill=5000, replay_ratio=2105.0),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = MICRO_TRANSFORMER | {"window": 48}
    return micro(
        config,
        world={"transformer": transformer, "net": {"layers": 2}},
        # new windows need no queue: what was never drawn is likeliest
        replay={"batch": 16, "length": 16, "online_queue": False},
    )


def awm(size: str) -> Config:
    """Actions World Models (Ma et al. 2024, arXiv:2402.05290): start and actions say it all.

    The authors' numbers are not public: sizes, rates and losses are TWM's and DreamerV3's, chosen
    here.  Deviates: the paper's states are vectors that are known; here they are latents of a
    camera, and the actor reads the newest one alone.
    """
    config = config_of(
        preset="awm", size="paper",
        world=dict(
            units=512, encoder=dict(kind="k4s2", depth=32), decoder=dict(reads="stoch"),
            categorical=dict(groups=32, classes=32), posterior=dict(units=512),
            net=dict(units=512), backbone="transformer",
            transformer=dict(width=256, layers=4, heads=4, head=64, hidden=1024, window=64,
                positions="sinusoid", tokens="actions"),
            heads=dict(reads="deter", layers=2), discount_horizon=100.0, fold_discount=False,
        ),
        behavior=dict(
            reads="stoch", gradient="dynamics", imag_starts=256, critic=dict(replay_scale=0.0),
        ),
        optim=dict(kind="adam", lr=1e-4, actor_lr=3e-5, critic_lr=3e-5, eps=1e-8),
        replay=dict(batch=32, length=32, online_queue=False),
    )  # fmt: skip
    if size == "paper":
        return config
    transformer = MICRO_TRANSFORMER | {"positions": "sinusoid"}
    return micro(config, world={"transformer": transformer})


def s4wm(size: str) -> Config:
    """S4WM (Deng et al. 2023, arXiv:2307.02064): a state-space backbone, scan and recurrence.

    Numbers: R2I's code (Samsami et al. 2024, arXiv:2403.04253), which is DreamerV3's with the
    state-space model of S5.  Deviates: real arithmetic throughout, so that it exports.  ``micro``
    has DreamerV3's norm, prior, dynamics scale and LaProp: with a LayerNorm and Adam its latents
    stayed empty for the first 500 updates of a toy task, on every backbone.  It learns all actions
    by REINFORCE, which costs a third less than gradients through the dynamics.
    """
    config = config_of(
        preset="s4wm", size="paper",
        world=dict(
            norm="layer", units=512, encoder=dict(kind="k4s2", depth=32),
            categorical=dict(groups=32, classes=32), posterior=dict(units=512),
            net=dict(layers=1, units=512), backbone="ssm",
            ssm=dict(deter=512, state=128, layers=4, blocks=8), heads=dict(layers=2),
            fold_discount=False, kl=dict(dyn_scale=0.5, rep_scale=0.1),
        ),
        behavior=dict(
            gradient="auto", imag_starts=1024, actor=dict(layers=2),
            critic=dict(layers=2, replay_scale=0.0),
        ),
        optim=dict(
            kind="adam", lr=1e-4, actor_lr=3e-5, critic_lr=3e-5, warmup=0, clip=1000.0, eps=1e-8,
        ),
        replay=dict(batch=4, length=1024, latents=100_000, online_queue=False),
    )  # fmt: skip
    if size == "paper":
        return config
    return micro(
        config,
        world={
            "norm": "rms",
            "kl": {"dyn_scale": 1.0},
            "net": {"layers": 2},
            "ssm": {"state": 128, "layers": 2, "blocks": 4},
        },
        behavior={"gradient": "reinforce", "entropy": {"scale": 3e-3}},
        optim={"kind": "laprop", "lr": 4e-4, "actor_lr": None, "critic_lr": None, "eps": 1e-20},
    )

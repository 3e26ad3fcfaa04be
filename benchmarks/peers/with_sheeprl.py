"""An update of sheeprl's DreamerV3, set up as its own command does."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peers.sizes import ACTION_SIZE, HORIZON, Size


def network_options(size: Size) -> list[str]:
    """Give the options of its command that make a network and a batch of ``size``."""
    return [
        f"algo.dense_units={size.units}",
        f"algo.mlp_layers={size.layers}",
        f"algo.horizon={HORIZON}",
        f"algo.per_rank_batch_size={size.batch}",
        f"algo.per_rank_sequence_length={size.length}",
        f"algo.world_model.encoder.cnn_channels_multiplier={size.depth}",
        f"algo.world_model.recurrent_model.recurrent_state_size={size.deter}",
        f"algo.world_model.transition_model.hidden_size={size.units}",
        f"algo.world_model.representation_model.hidden_size={size.units}",
        f"algo.world_model.stochastic_size={size.groups}",
        f"algo.world_model.discrete_size={size.classes}",
    ]


def settings(size: Size, precision: str) -> Any:
    """Its settings for ``size``; everything that is not named here is its own default."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf
    from sheeprl.utils.utils import dotdict

    options = [
        *("exp=dreamer_v3", "env=dummy", "env.id=continuous_dummy", "env.screen_size=64"),
        *("algo=dreamer_v3_S", "algo.cnn_keys.encoder=[rgb]", "algo.mlp_keys.encoder=[]"),
        *("algo.total_steps=1", "metric.log_level=0", f"fabric.precision={precision}"),
        *network_options(size),
    ]
    with initialize_config_module("sheeprl.configs", version_base="1.3"):
        composed = compose("config", overrides=options)
    return dotdict(OmegaConf.to_container(composed, resolve=True))


def make(size: Size, precision: str) -> tuple[Callable[[], None], int]:
    """A function that takes one gradient step, and the number of parameters.

    Args:
        size: of network and batch.
        precision: ``32-true`` or ``bf16-mixed``.
    """
    warnings.filterwarnings("ignore")  # of other people's code
    import gymnasium
    import hydra
    from lightning import Fabric
    from sheeprl.algos.dreamer_v3.agent import build_agent
    from sheeprl.algos.dreamer_v3.dreamer_v3 import train
    from sheeprl.algos.dreamer_v3.utils import Moments
    from sheeprl.utils.metric import MetricAggregator
    from torch.distributions import Distribution

    MetricAggregator.disabled = True
    config = settings(size, precision)
    Distribution.set_default_validate_args(config.distribution.validate_args)
    fabric = Fabric(accelerator="cpu", devices=1, precision=precision)
    space = gymnasium.spaces.Dict({"rgb": gymnasium.spaces.Box(0, 255, (3, 64, 64), "uint8")})
    world, actor, critic, target, _ = build_agent(fabric, (ACTION_SIZE,), True, config, space)
    parts = [(world, config.algo.world_model), (actor, config.algo.actor)]
    parts.append((critic, config.algo.critic))
    optimizers = fabric.setup_optimizers(
        *(
            hydra.utils.instantiate(part.optimizer, params=net.parameters(), _convert_="all")
            for net, part in parts
        )
    )
    scale = config.algo.actor.moments
    moments = Moments(scale.decay, scale.max, scale.percentile.low, scale.percentile.high)
    data = _batch(size)

    def update() -> None:
        floats = {name: values.float() for name, values in data.items()}
        nets, others = (world, actor, critic, target), (config, True, (ACTION_SIZE,), moments)
        train(fabric, *nets, *optimizers, floats, None, *others)

    count = sum(p.numel() for net in (world, actor, critic, target) for p in net.parameters())
    return update, count


def _batch(size: Size) -> dict[str, torch.Tensor]:
    """(T, B, ...) random steps, images as bytes."""
    shape, generator = (size.length, size.batch), torch.Generator().manual_seed(0)
    zeros = torch.zeros(*shape, 1)
    return {
        "rgb": torch.randint(0, 256, (*shape, 3, 64, 64), dtype=torch.uint8, generator=generator),
        "actions": torch.rand(*shape, ACTION_SIZE, generator=generator) * 2 - 1,
        "rewards": torch.rand(*shape, 1, generator=generator),
        "terminated": zeros, "truncated": zeros, "is_first": zeros,
    }  # fmt: skip

"""An update of torchrl's DreamerV3, joined from its own parts as its documentation does.

Its image convolutions have kernel 5 as it ships them, with the channels of the other contestants.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.peers.sizes import ACTION_SIZE, HORIZON, Size

BLOCKS, MULTIPLES, BINS = 8, (1, 2, 4, 8), 255


def make(size: Size, precision: str) -> tuple[Callable[[], None], int]:
    """A function that takes one gradient step, and the number of parameters.

    Args:
        size: of network and batch.
        precision: ``32-true`` or ``bf16-mixed``.
    """
    warnings.filterwarnings("ignore")  # of other people's code
    from torchrl.objectives import SoftUpdate
    from torchrl.trainers.algorithms.dreamer_v3 import DreamerV3Optimizer

    torch.manual_seed(0)
    loss = _loss(size)
    updater = SoftUpdate(loss.value_loss, tau=0.02)
    trained = [p for p in loss.parameters() if p.requires_grad]
    optimizer = DreamerV3Optimizer(trained)
    sample, mixed = _batch(size), precision == "bf16-mixed"

    def update() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            found = loss(sample.clone(recurse=False))
            total = sum(v for k, v in found.items() if k.startswith("loss_"))
        optimizer.zero_grad(set_to_none=False)
        total.backward()
        optimizer.step()
        updater.step()

    return update, sum(p.numel() for p in trained)


def _loss(size: Size) -> Any:
    """Its whole objective over a world model, an actor and a critic of ``size``."""
    from torchrl.objectives import (
        DreamerV3ActorLoss,
        DreamerV3Loss,
        DreamerV3ModelLoss,
        DreamerV3ValueLoss,
    )

    parts = _Parts(size)
    model_loss = DreamerV3ModelLoss(
        parts.world_model(), lambda_continue=1.0, kl_mode="separate", unimix=0.01,
        reco_symlog=False, num_reward_bins=BINS, detach_output=False,
    )  # fmt: skip
    model_loss.set_keys(pixels="pixels")
    actor_loss = DreamerV3ActorLoss(
        parts.actor(), parts.value(), parts.imagination(), imagination_horizon=HORIZON,
        continuation_model=parts.continuation(), use_reinforce=True,
    )  # fmt: skip
    value_loss = DreamerV3ValueLoss(
        actor_loss.value_model, value_loss="two_hot", num_value_bins=BINS,
        actor_loss=actor_loss, slow_critic_regularization=1.0,
    )  # fmt: skip
    return DreamerV3Loss(model_loss, actor_loss, value_loss)


class _Parts:
    """Makes the networks; those that world model and imagination share are made once."""

    def __init__(self, size: Size) -> None:
        from torchrl.modules import DreamerV3ImageEncoder, RSSMPosteriorV3, RSSMPriorV3

        self.size, self.stoch = size, size.groups * size.classes
        latent = {"num_categoricals": size.groups, "num_classes": size.classes, "unimix": 0.01}
        self.encoder = DreamerV3ImageEncoder(depth=size.depth, mults=MULTIPLES)
        self.prior = RSSMPriorV3(
            action_shape=(ACTION_SIZE,), action_dim=ACTION_SIZE, hidden_dim=size.units,
            rnn_hidden_dim=size.deter, recurrent_model="block_gru", num_blocks=BLOCKS, **latent,
        )  # fmt: skip
        self.posterior = RSSMPosteriorV3(
            hidden_dim=size.units, rnn_hidden_dim=size.deter, use_rms_norm=True,
            obs_embed_dim=self.encoder.output_features((3, 64, 64)), **latent,
        )  # fmt: skip
        self.reward, self.cont = self._head(BINS, outscale=0.0), self._head(1)

    def _head(self, outputs: int, outscale: float = 1.0) -> nn.Module:
        from torchrl.modules import DreamerV3MLP

        inputs = self.stoch + self.size.deter
        return DreamerV3MLP(
            inputs, outputs, depth=self.size.layers, num_cells=self.size.units, outscale=outscale
        )

    def world_model(self) -> Any:
        from tensordict.nn import TensorDictModule, TensorDictSequential
        from torchrl.modules import DreamerV3ImageDecoder, RSSMRolloutV3

        latent = [("next", "state"), ("next", "belief")]
        decoder = DreamerV3ImageDecoder(
            self.stoch + self.size.deter, depth=self.size.depth, mults=MULTIPLES
        )
        return TensorDictSequential(
            TensorDictModule(
                self.encoder, in_keys=[("next", "pixels")], out_keys=[("next", "encoded_latents")]
            ),
            RSSMRolloutV3(
                TensorDictModule(
                    self.prior,
                    in_keys=["state", "belief", "action"],
                    out_keys=[("next", "prior_logits"), *latent],
                ),
                TensorDictModule(
                    self.posterior,
                    in_keys=[("next", "belief"), ("next", "encoded_latents")],
                    out_keys=[("next", "posterior_logits"), ("next", "state")],
                ),
            ),
            TensorDictModule(decoder, in_keys=latent, out_keys=[("next", "reco_pixels")]),
            TensorDictModule(self.reward, in_keys=latent, out_keys=[("next", "reward_logits")]),
            TensorDictModule(self.cont, in_keys=latent, out_keys=[("next", "continue_pred")]),
        )

    def imagination(self) -> Any:
        from tensordict.nn import TensorDictModule, TensorDictSequential
        from torchrl.data import Bounded, Composite, Unbounded
        from torchrl.envs.model_based import DreamerEnv
        from torchrl.modules import SymExpTwoHot, WorldModelWrapper

        latent = ["state", "belief"]
        reward = TensorDictSequential(
            TensorDictModule(self.reward, in_keys=latent, out_keys=["reward_logits"]),
            TensorDictModule(SymExpTwoHot(BINS), in_keys=["reward_logits"], out_keys=["reward"]),
        )
        step = TensorDictModule(
            self.prior, in_keys=[*latent, "action"], out_keys=["_", "state", "belief"]
        )
        env = DreamerEnv(
            WorldModelWrapper(step, reward),
            prior_shape=(self.stoch,),
            belief_shape=(self.size.deter,),
        )
        env.observation_spec = Composite(
            state=Unbounded(self.stoch), belief=Unbounded(self.size.deter)
        )
        env.state_spec = env.observation_spec.clone()
        env.action_spec = Bounded(-1, 1, (ACTION_SIZE,))
        env.reward_spec = Unbounded((1,))
        return env

    def continuation(self) -> Any:
        from tensordict.nn import TensorDictModule

        return TensorDictModule(
            _Likely(self.cont), in_keys=["state", "belief"], out_keys=["continuation"]
        )

    def value(self) -> Any:
        from tensordict.nn import TensorDictModule, TensorDictSequential
        from torchrl.modules import SymExpTwoHot

        return TensorDictSequential(
            TensorDictModule(
                self._head(BINS, outscale=0.0),
                in_keys=["state", "belief"],
                out_keys=["state_value_logits"],
            ),
            TensorDictModule(
                SymExpTwoHot(BINS), in_keys=["state_value_logits"], out_keys=["state_value"]
            ),
        )

    def actor(self) -> Any:
        from tensordict.nn import (
            ProbabilisticTensorDictModule,
            ProbabilisticTensorDictSequential,
            TensorDictModule,
        )
        from torchrl.modules.distributions.continuous import IndependentNormal

        return ProbabilisticTensorDictSequential(
            TensorDictModule(
                _Gaussian(self._head(2 * ACTION_SIZE, outscale=0.01)),
                in_keys=["state", "belief"],
                out_keys=["loc", "scale"],
            ),
            ProbabilisticTensorDictModule(
                in_keys=["loc", "scale"],
                out_keys=["action"],
                distribution_class=IndependentNormal,
                return_log_prob=True,
                log_prob_key="action_log_prob",
            ),
        )


class _Likely(nn.Module):
    """The probability that a head's logit stands for."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, state: torch.Tensor, belief: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(self.head(state, belief).float())


class _Gaussian(nn.Module):
    """Mean in [-1, 1] and standard deviation in [0.1, 1], as in DreamerV3."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(
        self, state: torch.Tensor, belief: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        mean, std = self.head(state, belief).float().chunk(2, -1)
        return mean.tanh(), 0.9 * torch.sigmoid(std + 2) + 0.1


def _batch(size: Size) -> Any:
    """(B, T) random steps, images as bytes."""
    from tensordict import TensorDict

    shape, generator = (size.batch, size.length), torch.Generator().manual_seed(0)
    never = torch.zeros(*shape, 1, dtype=torch.bool)
    pixels = torch.randint(0, 256, (*shape, 3, 64, 64), dtype=torch.uint8, generator=generator)
    return TensorDict(
        {
            "state": torch.zeros(*shape, size.groups * size.classes),
            "belief": torch.zeros(*shape, size.deter),
            "action": torch.rand(*shape, ACTION_SIZE, generator=generator) * 2 - 1,
            "is_init": never,
            "next": {
                "pixels": pixels,
                "reward": torch.rand(*shape, 1, generator=generator),
                "done": never,
                "terminated": never,
            },
        },
        shape,
    )

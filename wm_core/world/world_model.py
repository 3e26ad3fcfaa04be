"""Encoder, dynamics, decoder and heads as one thing that can observe, imagine and be trained."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.config import WorldConfig
from wm_core.contract.spec import Spec
from wm_core.world.decoder import Decoder
from wm_core.world.encoder import Encoder
from wm_core.world.heads import ContHead, TwoHotHead
from wm_core.world.latent import Latent, TorchBatch
from wm_core.world.objectives import dynamics_losses
from wm_core.world.rssm import RSSM


@dataclass(frozen=True, slots=True)
class WorldLosses:
    """What one pass over a batch made."""

    losses: dict[str, Tensor]  #: name -> (), already scaled
    posterior: Latent  #: (B, T), with gradients
    metrics: dict[str, Tensor]  #: name -> ()


def computing_in(
    dtype: torch.dtype | None, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Autocast on ``device`` to ``dtype``; None leaves things as they are."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class WorldModel(nn.Module):
    """Learns what happens from ``spec``'s observations and actions.

    ``cont`` predicts P(not terminal) * (1 - 1 / discount_horizon): the discount lives in it, so
    that whoever uses it discounts with 1.
    """

    def __init__(self, spec: Spec, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.feat_size = config.deter + config.groups * config.classes  #: F
        self.encoder = Encoder(spec, config)
        self.dynamics = RSSM(self.encoder.size, spec.action.size, config)
        self.decoder = Decoder(spec, config)
        self.reward = TwoHotHead(self.feat_size, config.units, config.head_layers, config.bins)
        self.cont = ContHead(self.feat_size, config.units, config.head_layers)

    def observe(
        self,
        batch: TorchBatch,
        start: Latent,
        uniform: Tensor,
        *,
        conv_dtype: torch.dtype | None = None,
    ) -> Latent:
        """(B, T) posteriors along ``batch``, from (B,) ``start``; uniforms (B, T, S, K).

        ``conv_dtype`` is what the convolutions compute in, where it differs from the rest.
        """
        with computing_in(conv_dtype, uniform.device):
            embed = self.encoder(batch.obs)
        return self.dynamics.observe(start, batch.prev_action, embed, batch.is_first, uniform)

    def observe_step(
        self,
        latent: Latent,
        prev_action: Tensor,
        obs: dict[str, Tensor],
        is_first: Tensor,
        uniform: Tensor,
    ) -> Latent:
        """(N,) posterior after one more observation: what acting does.

        Args:
            latent: (N,) of the step before.
            prev_action: (N, A) action that led to ``obs``.
            obs: images (N, H, W, C) uint8, vectors (N, n).
            is_first: (N,) bool; the past is zeroed there.
            uniform: (N, S, K) in [0, 1).
        """
        embed = self.encoder(obs)
        return self.dynamics.observe_step(latent, prev_action, embed, is_first, uniform)

    def loss(
        self,
        batch: TorchBatch,
        start: Latent,
        generator: torch.Generator,
        *,
        conv_dtype: torch.dtype | None = None,
    ) -> WorldLosses:
        """Every loss of the world model on (B, T) ``batch``, from (B,) ``start``."""
        config = self.config
        shape = (*batch.reward.shape, *self.dynamics.noise_shape())
        uniform = torch.rand(shape, generator=generator, device=batch.reward.device)
        posterior = self.observe(batch, start, uniform, conv_dtype=conv_dtype)
        assert posterior.log_probs is not None
        prior = self.dynamics.prior(posterior.deter)
        dyn, rep, kl = dynamics_losses(posterior.log_probs, prior, free_nats=config.free_nats)
        feat = posterior.feat
        alive = (~batch.is_terminal).float() * (1.0 - 1.0 / config.discount_horizon)
        losses = {
            "dyn_loss": config.dyn_scale * dyn.mean(),
            "rep_loss": config.rep_scale * rep.mean(),
            "reward_loss": config.reward_scale * self.reward.loss(feat, batch.reward).mean(),
            "cont_loss": config.cont_scale * self.cont.loss(feat, alive).mean(),
        }
        rows = self._rows_to_decode(batch, generator)
        obs = {
            k: v.flatten(0, 1) if rows is None else v.flatten(0, 1)[rows]
            for k, v in batch.obs.items()
        }
        with computing_in(conv_dtype, uniform.device):
            recon = self.decoder.loss(posterior.flat(rows), obs)
        losses |= {f"recon_loss/{k}": config.recon_scale * v.mean() for k, v in recon.items()}
        return WorldLosses(losses, posterior, {"kl": kl.mean()})

    def _rows_to_decode(self, batch: TorchBatch, generator: torch.Generator) -> Tensor | None:
        """(N,) indices into the flat batch of the frames to reconstruct; None: all of them.

        Deviates: DreamerV3 reconstructs every frame; ``recon_share`` takes a random part.
        """
        total = batch.reward.numel()
        wanted = math.ceil(self.config.recon_share * total)
        if wanted >= total:
            return None
        return torch.randperm(total, generator=generator, device=batch.reward.device)[:wanted]

    @torch.no_grad()
    def open_loop(
        self, batch: TorchBatch, start: Latent, observed: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the model sees after ``observed`` steps of real frames, then with eyes closed.

        Returns:
            Images (B, T, H, W, C) uint8 and vectors (B, T, n): reconstructions of the first
            ``observed`` steps, then predictions from the recorded actions alone.
        """
        shape = (*batch.reward.shape, *self.dynamics.noise_shape())
        uniform = torch.rand(shape, generator=generator, device=batch.reward.device)
        seen = self.observe(batch.first(observed), start, uniform[:, :observed])
        latent = Latent(seen.deter[:, -1], seen.stoch[:, -1])
        deters, stochs = [seen.deter], [seen.stoch]
        for t in range(observed, batch.reward.shape[1]):
            latent = self.dynamics.imagine_step(latent, batch.prev_action[:, t], uniform[:, t])
            deters.append(latent.deter.unsqueeze(1))
            stochs.append(latent.stoch.unsqueeze(1))
        return self.decoder(Latent(torch.cat(deters, 1), torch.cat(stochs, 1)))

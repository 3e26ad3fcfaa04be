"""Encoder, dynamics, decoder and heads as one thing that can observe, imagine and be trained."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import Spec
from wm_core.nn.blocks import Linear, Style
from wm_core.nn.normalize import AdaptiveScale
from wm_core.nn.optim import ParameterGroup
from wm_core.world.decoder import Decoder
from wm_core.world.encoder import Encoder
from wm_core.world.heads import ContHead, number_head
from wm_core.world.latent import Latent
from wm_core.world.objectives import barlow_loss, dynamics_losses
from wm_core.world.rssm import RSSM
from wm_core.world.sequence import SequenceModel
from wm_core.world.settings import WorldConfig
from wm_core.world.space import Categorical


@dataclass(frozen=True, slots=True)
class WorldLosses:
    """What one pass over a batch made."""

    representation: dict[str, Tensor]  #: name -> (), scaled: what trains encoder and decoder
    dynamics: dict[str, Tensor]  #: name -> (), scaled: what trains backbone, prior and heads
    posterior: Latent  #: (B, T), with gradients
    metrics: dict[str, Tensor]  #: name -> ()


def computing_in(
    dtype: torch.dtype | None, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Autocast on ``device`` to ``dtype``; None leaves things as they are."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


class WorldModel(nn.Module):
    """Learns what happens from ``spec``'s observations and actions.

    Where ``fold_discount`` is set, ``cont`` predicts P(not terminal) * (1 - 1 / discount_horizon)
    and ``discount`` is 1: whoever uses the one multiplies with the other.
    """

    def __init__(self, spec: Spec, config: WorldConfig) -> None:
        super().__init__()
        self.config = config
        self.discount = 1.0 if config.cont and config.fold_discount else config.discount
        style = Style(config.norm, config.activation)
        self.encoder = Encoder(spec, config)
        dynamics = RSSM if config.backbone == "gru" else SequenceModel
        self.dynamics = dynamics(self.encoder.size, spec.action.size, config)
        self.decoder = None if config.decoder == "none" else Decoder(spec, config)
        reads, layers = config.width_of(config.heads_read), config.head_layers
        self.reward = number_head(
            config.reward_head, reads, config.units, layers, config.bins, style
        )
        self.cont = ContHead(reads, config.units, layers, style) if config.cont else None
        barlow = config.objective == "barlow"
        self.projection = (
            Linear(config.width_of("feat"), self.encoder.size, bias=False) if barlow else None
        )
        self.kl_scale = (
            None
            if config.kl_target is None
            else AdaptiveScale(
                target=config.kl_target, low=1e-3, high=1.0, raise_when_low=False, initial=1.0
            )
        )

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The weights that learn to encode and to show, and those that learn to predict."""
        parts = (self.encoder, self.decoder, self.projection, *self.dynamics.representation)
        encoding = {id(p) for part in parts if part is not None for p in part.parameters()}
        every = list(self.parameters())
        return {
            "representation": ParameterGroup([p for p in every if id(p) in encoding]),
            "dynamics": ParameterGroup([p for p in every if id(p) not in encoding]),
        }

    # ------------------------------------------------------------------ what heads say

    def predict(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """(...) reward on arriving in ``latent`` (...) and probability that it goes on there."""
        part = latent.read(self.config.heads_read)
        reward = self.reward.value(self.reward(part))
        return reward, torch.ones_like(reward) if self.cont is None else self.cont.mean(part)

    # ------------------------------------------------------------------ along data

    def observe(
        self,
        batch: Batch[Tensor],
        start: Latent,
        uniform: Tensor,
        *,
        conv_dtype: torch.dtype | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Latent, Tensor]:
        """(B, T) posteriors along ``batch``, from (B,) ``start``, and embeddings (B, T, E).

        Args:
            batch: (B, T).
            start: (B,) of the step before.
            uniform: (B, T, *space.shape) in [0, 1).
            conv_dtype: what the convolutions compute in, where it differs from the rest.
            generator: decides the dropout; None drops nothing.
        """
        with computing_in(conv_dtype, uniform.device):
            embed = self.encoder(batch.obs)
        posterior = self.dynamics.observe(
            start, batch.prev_action, embed, batch.is_first, uniform, batch.reward, generator
        )
        return posterior, embed

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
            is_first: (N,) bool; the past is forgotten there.
            uniform: (N, *space.shape) in [0, 1).
        """
        embed = self.encoder(obs)
        return self.dynamics.observe_step(latent, prev_action, embed, is_first, uniform)

    def glimpse(self, obs: dict[str, Tensor], uniform: Tensor) -> Latent:
        """(N,) posterior of an observation alone, for those who read ``stoch`` and no more."""
        assert isinstance(self.dynamics, SequenceModel)
        stoch, params = self.dynamics.glimpse(self.encoder(obs), uniform)
        return Latent(stoch.new_zeros(*stoch.shape[:1], self.config.deter_size), stoch, params)

    # ------------------------------------------------------------------ in imagination

    def imagine_step(
        self, latent: Latent, action: Tensor, uniform: Tensor, *, temperature: float = 1.0
    ) -> Latent:
        """(N,) draw from the prior after ``action`` (N, A), as ``Dynamics.imagine_step``."""
        reward = self.predict(latent)[0] if self.config.tokens == "split" else None
        return self.dynamics.imagine_step(
            latent, action, uniform, reward=reward, temperature=temperature
        )

    # ------------------------------------------------------------------ losses

    def loss(
        self,
        batch: Batch[Tensor],
        start: Latent,
        generator: torch.Generator,
        *,
        conv_dtype: torch.dtype | None = None,
    ) -> WorldLosses:
        """Every loss of the world model on (B, T) ``batch``, from (B,) ``start``."""
        config = self.config
        shape = (*batch.reward.shape, *self.dynamics.space.shape)
        uniform = torch.rand(shape, generator=generator, device=batch.reward.device)
        posterior, embed = self.observe(
            batch, start, uniform, conv_dtype=conv_dtype, generator=generator
        )
        dyn, rep, kl = dynamics_losses(
            self.dynamics.space,
            self.dynamics.prior,
            posterior,
            self.dynamics.foreseen(batch.is_first),
            config,
        )
        scale = 1.0 if self.kl_scale is None else self.kl_scale.update(kl)
        dynamics = {"dyn_loss": scale * config.dyn_scale * dyn} | self._heads_loss(
            posterior, batch
        )
        representation = {"rep_loss": scale * config.rep_scale * rep}
        if config.entropy_scale:
            representation["entropy_loss"] = config.entropy_scale * self._entropy_hinge(posterior)
        if self.projection is not None:
            made = self.projection(posterior.feat).flatten(0, -2)
            loss = barlow_loss(
                made, embed.detach().flatten(0, -2), redundancy=config.barlow_redundancy
            )
            representation["barlow_loss"] = config.barlow_scale * loss
        with computing_in(conv_dtype, uniform.device):
            representation |= self._recon_loss(posterior, batch, generator)
        metrics = {"kl": kl}
        if self.kl_scale is not None:
            metrics["kl_scale"] = self.kl_scale.scale.clone()
        return WorldLosses(representation, dynamics, posterior, metrics)

    def _heads_loss(self, posterior: Latent, batch: Batch[Tensor]) -> dict[str, Tensor]:
        config = self.config
        if config.gradients == "staged":
            posterior = replace(posterior, stoch=posterior.stoch.detach())
        part = posterior.read(config.heads_read)
        reward = self.reward.error(self.reward(part), batch.reward)
        losses = {"reward_loss": config.reward_scale * reward.mean()}
        if self.cont is not None:
            alive = (~batch.is_terminal).float() * (config.discount if config.fold_discount else 1)
            losses["cont_loss"] = config.cont_scale * self.cont.loss(part, alive).mean()
        return losses

    def _recon_loss(
        self, posterior: Latent, batch: Batch[Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.decoder is None:
            return {}
        rows = self._rows_to_decode(batch, generator)
        obs = {
            k: v.flatten(0, 1) if rows is None else v.flatten(0, 1)[rows]
            for k, v in batch.obs.items()
        }
        shown = posterior.flat(rows)
        if self.config.decoder == "detached":
            shown = shown.detach()
        recon = self.decoder.loss(shown, obs)
        return {f"recon_loss/{k}": self.config.recon_scale * v.mean() for k, v in recon.items()}

    def _entropy_hinge(self, posterior: Latent) -> Tensor:
        """() what posteriors pay that are surer than the floor allows.

        Source: TWM, arXiv:2303.07109, loss of the observation model; as a hinge: its code.
        """
        assert isinstance(self.dynamics.space, Categorical)
        assert posterior.params is not None
        entropy = self.dynamics.space.entropy(posterior.params)
        return (self.config.entropy_floor - entropy).clamp_min(0.0).mean()

    def _rows_to_decode(self, batch: Batch[Tensor], generator: torch.Generator) -> Tensor | None:
        """(N,) indices into the flat batch of the frames to reconstruct; None: all of them.

        Deviates: the papers reconstruct every frame; ``recon_share`` takes a random part.
        """
        total = batch.reward.numel()
        wanted = math.ceil(self.config.recon_share * total)
        if wanted >= total:
            return None
        return torch.randperm(total, generator=generator, device=batch.reward.device)[:wanted]

    # ------------------------------------------------------------------ to look at

    @torch.no_grad()
    def open_loop(
        self, batch: Batch[Tensor], start: Latent, observed: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """What the model sees after ``observed`` steps of real frames, then with eyes closed.

        Returns:
            Images (B, T, H, W, C) uint8 and vectors (B, T, n): reconstructions of the first
            ``observed`` steps, then predictions from the recorded actions alone.

        Raises:
            SettingsError: where the model has no decoder.
        """
        if self.decoder is None:
            raise SettingsError(
                "this world model has no decoder to show what it believes; train with "
                "--world.decoder detached, which changes nothing else"
            )
        (B, T), device = batch.reward.shape, batch.reward.device

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        before = batch.first(observed)
        seen, _ = self.observe(before, start, rand(B, observed, *self.dynamics.space.shape))
        latent = self.dynamics.starts(seen, torch.tensor([observed - 1], device=device))
        deters, stochs = [seen.deter], [seen.stoch]
        for t in range(observed, T):
            uniform = rand(B, *self.dynamics.prior.noise_shape)
            latent = self.imagine_step(latent, batch.prev_action[:, t], uniform)
            deters.append(latent.deter.unsqueeze(1))
            stochs.append(latent.stoch.unsqueeze(1))
        return self.decoder(Latent(torch.cat(deters, 1), torch.cat(stochs, 1)))

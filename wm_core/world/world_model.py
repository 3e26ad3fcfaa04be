"""The world model joins encoder, dynamics, decoder and heads: it observes, imagines and learns."""

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
from wm_core.nn import joined
from wm_core.nn.blocks import Style, drawing_from, initialize
from wm_core.nn.normalize import AdaptiveScale
from wm_core.nn.optim import ParameterGroup
from wm_core.world.balance import LossBalance
from wm_core.world.base import Dynamics, Imagine, Recorded
from wm_core.world.decoder import Decoder
from wm_core.world.encoder import Encoder
from wm_core.world.heads import ContHead, number_head
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import Categorical, LatentDist
from wm_core.world.objectives import dynamics_losses
from wm_core.world.prior import Prior
from wm_core.world.rssm import RSSM
from wm_core.world.sequence import SequenceModel
from wm_core.world.settings import BACKBONES, LATENTS, OBJECTIVES, PRIORS, WorldConfig


@dataclass(frozen=True, slots=True)
class WorldLosses:
    """The losses, posteriors and metrics of one pass over a batch."""

    representation: dict[str, Tensor]  #: name -> (), scaled: what trains encoder and decoder
    dynamics: dict[str, Tensor]  #: name -> (), scaled: what trains backbone, prior and heads
    posterior: Latent  #: (B, T), with gradients
    metrics: dict[str, Tensor]  #: name -> ()


def computing_in(
    dtype: torch.dtype | None, device: torch.device
) -> contextlib.AbstractContextManager[Any]:
    """Autocast on ``device`` to ``dtype``; None leaves things as they are."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def make_dynamics(config: WorldConfig, embed: int, action: int, style: Style) -> Dynamics:
    """The dynamics of the parts that ``config`` names."""
    deter, settings = config.sizes.deter, config.settings_of
    dist: LatentDist = LATENTS.make(config.latent)(settings(config.latent))
    prior: Prior = PRIORS.make(config.prior)(settings(config.prior), deter, dist, style)
    make_backbone, backbone = BACKBONES.make(config.backbone), settings(config.backbone)
    if config.recurrent:
        recurrence = make_backbone(backbone, dist.size, action, style)
        return RSSM(deter, embed, recurrence, dist, prior, config.posterior, style)
    return SequenceModel(
        deter, embed, action, make_backbone(backbone), dist, prior, config.posterior, style,
        config.tokens, config.gradients == "staged", config.transformer.token_activation,
    )  # fmt: skip


class WorldModel(nn.Module):
    """Learns to predict observations and rewards from actions.

    Where ``fold_discount`` is set, ``cont`` predicts P(not terminal) * (1 - 1 / discount_horizon)
    and ``discount`` is 1: whoever uses the one multiplies with the other.

    Args:
        spec: observations and actions.
        config: the parts and their sizes.
        generator: on the CPU; decides the initial weights, also of layers that torch draws itself.
    """

    def __init__(self, spec: Spec, config: WorldConfig, *, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.discount = 1.0 if config.heads.cont and config.fold_discount else config.discount
        with drawing_from(generator):
            self._make_parts(spec, config)
        initialize(self, generator)

    def _make_parts(self, spec: Spec, config: WorldConfig) -> None:
        style, sizes = Style(config.norm, config.activation), config.sizes
        self.encoder = Encoder(spec, config.encoder, config.units, style)
        self.dynamics = make_dynamics(config, self.encoder.size, spec.action.size, style)
        self.decoder: Decoder | None = None
        if config.decoder.kind != "none":
            self.decoder = Decoder(
                spec, sizes, config.encoder, config.decoder, config.units, style,
                measured=config.recon.vector_variance == "measured",
            )  # fmt: skip
        heads, reads = config.heads, sizes.of(config.heads.reads)
        self.reward = number_head(
            heads.reward, reads, config.units, heads.layers, heads.bins, style
        )
        self.cont: ContHead | None = None
        if heads.cont:
            self.cont = ContHead(reads, config.units, heads.layers, style)
        objective = OBJECTIVES.make(config.objective)
        #: the objective's own layers; checkpoints know them by this name
        self.projection = objective(config.settings_of(config.objective), sizes, self.encoder.size)
        self.balance: LossBalance | None = None
        if config.balance.kind == "harmony":
            self.balance = LossBalance(config.balance, shown=config.decoder.kind == "detached")
        self.kl_scale: AdaptiveScale | None = None
        if config.kl.target is not None:
            self.kl_scale = AdaptiveScale(
                target=config.kl.target, low=1e-3, high=1.0, raise_when_low=False, initial=1.0
            )

    def begin_with(self, obs: dict[str, Tensor]) -> None:
        """Take from the first experience what need not be learnt, as the settings say.

        Args:
            obs: of the first update, images (B, T, H, W, C) uint8.
        """
        if self.decoder is not None and self.config.decoder.start == "mean":
            self.decoder.begin_at_mean(obs)

    def parameter_groups(self) -> dict[str, ParameterGroup]:
        """The weights that learn to encode and to decode, and those that learn to predict."""
        parts = (self.encoder, self.decoder, self.projection, *self.dynamics.representation)
        encoding = {id(p) for part in parts if part is not None for p in part.parameters()}
        every, groups = list(self.parameters()), dict[str, ParameterGroup]()
        if self.balance is not None:
            groups["balance"] = ParameterGroup([self.balance.log_scale], lr=self.balance.lr)
            every = [p for p in every if p is not self.balance.log_scale]
        return {
            "representation": ParameterGroup([p for p in every if id(p) in encoding]),
            "dynamics": ParameterGroup([p for p in every if id(p) not in encoding]),
            **groups,
        }

    @property
    def reach(self) -> int | None:
        """Most steps in a row that a dream may have, its start included; None: any number.

        With tokens ``actions`` all that is known of the start is its own token, which each step of
        training sees; a dream ends before the window loses it.
        """
        return self.config.transformer.window if self.config.tokens == "actions" else None

    # ------------------------------------------------------------------ predictions of the heads

    def predict(self, latent: Latent) -> tuple[Tensor, Tensor]:
        """(...) reward of ``latent`` (...), and (...) probability that the episode goes on."""
        part = latent.read(self.config.heads.reads)
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
            uniform: (B, T, *latent_dist.shape) in [0, 1).
            conv_dtype: type that the convolutions compute in, where it differs from the rest.
            generator: decides the dropout; None drops nothing.
        """
        with computing_in(conv_dtype, uniform.device):
            embed = self.encoder(batch.obs)
        steps = Recorded(batch.prev_action, embed, batch.is_first, batch.reward)
        return self.dynamics.observe(start, steps, uniform, generator), embed

    def observe_step(
        self,
        latent: Latent,
        prev_action: Tensor,
        obs: dict[str, Tensor],
        is_first: Tensor,
        uniform: Tensor,
    ) -> Latent:
        """(N,) posterior after one more observation, as acting needs it.

        Args:
            latent: (N,) of the step before.
            prev_action: (N, A) action that led to ``obs``.
            obs: images (N, H, W, C) uint8, vectors (N, n).
            is_first: (N,) bool; the past is forgotten there.
            uniform: (N, *latent_dist.shape) in [0, 1).
        """
        embed = self.encoder(obs)
        return self.dynamics.observe_step(latent, prev_action, embed, is_first, uniform)

    def encode_posterior(self, obs: dict[str, Tensor], uniform: Tensor) -> Latent:
        """(N,) posterior q(z | e) of one observation, for networks that read ``stoch`` alone.

        Args:
            obs: images (N, H, W, C) uint8, vectors (N, n).
            uniform: (N, *latent_dist.shape) in [0, 1).
        """
        assert isinstance(self.dynamics, SequenceModel)
        stoch, params = self.dynamics.encode_posterior(self.encoder(obs), uniform)
        return Latent(stoch.new_zeros(len(stoch), self.config.sizes.deter), stoch, params)

    # ------------------------------------------------------------------ in imagination

    def imagine_step(
        self, latent: Latent, action: Tensor, uniform: Tensor, *, temperature: float = 1.0
    ) -> Latent:
        """(N,) draw from the prior after ``action`` (N, A), as ``Dynamics.imagine_step``."""
        reward = self.predict(latent)[0] if self.config.tokens == "split" else None
        return self.dynamics.imagine_step(
            latent, action, uniform, reward=reward, temperature=temperature
        )

    def imaginer(self, uniform: Tensor) -> Imagine:
        """A function of (t, latent (N,), action (N, A)) that gives what ``imagine_step`` gives.

        Args:
            uniform: (T_imag, N, *prior.noise_shape) in [0, 1).
        """

        def plainly(t: int, latent: Latent, action: Tensor) -> Latent:
            return self.imagine_step(latent, action, uniform[t])

        return self.dynamics.imaginer(uniform) or plainly

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
        shape = (*batch.reward.shape, *self.dynamics.latent_dist.shape)
        uniform = joined.rand(shape, generator=generator, device=batch.reward.device)
        posterior, embed = self.observe(
            batch, start, uniform, conv_dtype=conv_dtype, generator=generator
        )
        dist, prior = self.dynamics.latent_dist, self.dynamics.prior
        counted = self.dynamics.predictable(batch.is_first)
        dyn, rep, kl = dynamics_losses(dist, prior, posterior, counted, config.kl)
        scale = 1.0 if self.kl_scale is None else self.kl_scale.update(kl)
        dynamics = {"dyn_loss": scale * config.kl.dyn_scale * dyn}
        dynamics |= self._heads_loss(posterior, batch)
        representation = {"rep_loss": scale * config.kl.rep_scale * rep}
        if config.entropy.scale:
            representation["entropy_loss"] = config.entropy.scale * self._entropy_hinge(posterior)
        representation |= self.projection.losses(posterior, embed)
        with computing_in(conv_dtype, uniform.device):
            representation |= self._recon_loss(posterior, batch, generator)
        metrics = {"kl": kl}
        if self.kl_scale is not None:
            metrics["kl_scale"] = self.kl_scale.scale.clone()
        if self.balance is not None:
            (representation, dynamics), cost, weights = self.balance(representation, dynamics)
            dynamics["balance_loss"] = cost
            metrics |= weights
        return WorldLosses(representation, dynamics, posterior, metrics)

    @torch.no_grad()
    def window_loss(self, batch: Batch[Tensor], posterior: Latent) -> Tensor:
        """(B,) how badly each window was predicted: nats of the prior plus the reward's error.

        Args:
            batch: (B, T) windows.
            posterior: (B, T) latents of ``batch``.
        """
        nats = self.dynamics.prior.loss(self.dynamics.prior(posterior.deter), posterior)
        reward = self.reward(posterior.read(self.config.heads.reads))
        return nats.mean(1) + self.reward.error(reward, batch.reward).mean(1)

    def _heads_loss(self, posterior: Latent, batch: Batch[Tensor]) -> dict[str, Tensor]:
        config, heads = self.config, self.config.heads
        if config.gradients == "staged":
            posterior = replace(posterior, stoch=posterior.stoch.detach())
        part = posterior.read(heads.reads)
        reward = self.reward.error(self.reward(part), batch.reward)
        losses = {"reward_loss": heads.reward_scale * reward.mean()}
        if self.cont is not None:
            target = (~batch.is_terminal).float()
            target = target * (config.discount if config.fold_discount else 1)
            losses["cont_loss"] = heads.cont_scale * self.cont.loss(part, target).mean()
        return losses

    def _recon_loss(
        self, posterior: Latent, batch: Batch[Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        if self.decoder is None:
            return {}
        rows = self._rows_to_decode(batch, generator)
        frames = {k: v.flatten(0, 1) for k, v in batch.obs.items()}
        count = joined.rows_in_all(batch.reward.numel()) if rows is None else len(rows)
        rows = None if rows is None else joined.own_rows(rows, batch.reward.numel())
        obs = frames if rows is None else {k: v[rows] for k, v in frames.items()}
        latent = posterior.flat(rows)
        if self.config.decoder.kind == "detached":
            latent = latent.detach()
        recon, at_once = self.config.recon, self.config.recon.rows_at_once
        if at_once is None:
            means = _means(self.decoder.loss(latent, obs), count)
        else:
            means = _means(self.decoder.vector_loss(latent, obs), count)
            for key in self.decoder.images:
                total = self.decoder.image_total(key, latent, obs[key], at_once)
                means[key] = joined.part_of_mean(total, count)
        return {f"recon_loss/{key}": recon.scale * mean for key, mean in means.items()}

    def _entropy_hinge(self, posterior: Latent) -> Tensor:
        """() penalty on posteriors (B, T) whose entropy, or its mean, lies below the floor.

        Source: TWM, arXiv:2303.07109, loss of the observation model; as a hinge of the batch's
        mean: its code.
        """
        dist = self.dynamics.latent_dist
        assert isinstance(dist, Categorical)
        assert posterior.params is not None
        entropy, hinge = dist.entropy(posterior.params), self.config.entropy
        if hinge.over == "mean":
            entropy = joined.mean(entropy.mean())
        return (hinge.floor - entropy).clamp_min(0.0).mean()

    def _rows_to_decode(self, batch: Batch[Tensor], generator: torch.Generator) -> Tensor | None:
        """(N,) indices into the flat joined batch of the frames to reconstruct; None: all of them.

        Deviates: the papers reconstruct every frame; ``recon.share`` takes a random part.
        """
        total = joined.rows_in_all(batch.reward.numel())
        wanted = math.ceil(self.config.recon.share * total)
        if wanted >= total:
            return None
        return torch.randperm(total, generator=generator, device=batch.reward.device)[:wanted]

    # ------------------------------------------------------------------ open-loop predictions

    @torch.no_grad()
    def open_loop(
        self, batch: Batch[Tensor], start: Latent, observed: int, generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Reconstruct the first steps of ``batch``, and predict the rest from its actions alone.

        Args:
            batch: (B, T).
            start: (B,) of the step before.
            observed: number of steps whose observations the model gets.
            generator: decides every sample.

        Returns:
            Images (B, T, H, W, C) uint8 and vectors (B, T, n): reconstructions of the first
            ``observed`` steps, then predictions from the recorded actions alone.

        Raises:
            SettingsError: where the model has no decoder, or cannot imagine so many steps.
        """
        if self.decoder is None:
            raise SettingsError(
                "this world model has no decoder, expected one to show predictions; train with "
                "--world.decoder.kind detached, which changes nothing else"
            )
        (B, T), device = batch.reward.shape, batch.reward.device
        if self.reach is not None and T - observed >= self.reach:
            raise SettingsError(
                f"expected at most {self.reach - 1} imagined steps, which "
                f"world.transformer.window {self.reach} holds, got {T - observed}; take a shorter "
                "window"
            )

        def rand(*shape: int) -> Tensor:
            return torch.rand(shape, generator=generator, device=device)

        before = batch.first(observed)
        posterior, _ = self.observe(
            before, start, rand(B, observed, *self.dynamics.latent_dist.shape)
        )
        latent = self.dynamics.imagination_starts(
            posterior, torch.tensor([observed - 1], device=device)
        )
        deters, stochs = [posterior.deter], [posterior.stoch]
        for t in range(observed, T):
            uniform = rand(B, *self.dynamics.prior.noise_shape)
            latent = self.imagine_step(latent, batch.prev_action[:, t], uniform)
            deters.append(latent.deter.unsqueeze(1))
            stochs.append(latent.stoch.unsqueeze(1))
        return self.decoder(Latent(torch.cat(deters, 1), torch.cat(stochs, 1)))


def _means(errors: dict[str, Tensor], count: int) -> dict[str, Tensor]:
    """() each of the (...) ``errors``: our part of their mean over ``count`` joined rows."""
    return {key: joined.mean_over(error.flatten(), count) for key, error in errors.items()}

"""The recurrent state-space model, whose posterior is part of the recurrence.

What does not depend on the recurrence is computed for all times at once before the loop: the
action's and the embedding's projections, the noise, and after the loop the prior.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from wm_core.nn.blocks import Dense, Linear, NormRms, Style, forget, norm_act, products_dtype
from wm_core.nn.gru import GRU, BlockGRU
from wm_core.world.base import Carry, Dynamics, Imagine, Recorded, Recurrence
from wm_core.world.fused_cell import Cell, CellWeights, draw
from wm_core.world.imagine_fused import FusedDream, PriorLayer, PriorWeights
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import Categorical, LatentDist
from wm_core.world.observe_fused import Sequence, observe_fused
from wm_core.world.part_settings import GRUConfig, PosteriorConfig
from wm_core.world.prior import NetPrior, Prior


class BlockRecurrence(nn.Module):
    """A block-diagonal GRU over deter, stoch and action, each projected on its own.

    Source: DreamerV3, arXiv:2301.04104, "World model learning"; block-GRU as in the Nature code.
    """

    def __init__(self, config: GRUConfig, stoch: int, action: int, style: Style) -> None:
        super().__init__()
        deter, hidden = config.deter, config.hidden
        self.in_deter = Dense(deter, hidden, style)
        self.in_stoch = Dense(stoch, hidden, style)
        self.in_action = Dense(action, hidden, style)
        self.gru = BlockGRU(deter, config.blocks, 3 * hidden)
        fan_in = self.gru.fan_in
        self.share_latent = Linear(2 * hidden, deter, bias=False, fan_in=fan_in)
        self.share_action = Linear(hidden, deter, bias=False, fan_in=fan_in)

    def prepare(self, action: Tensor) -> Tensor:
        """(..., D) what ``action`` (..., A) adds to the GRU's input."""
        return self.share_action(self.in_action(action)).float()

    def forward(self, deter: Tensor, stoch: Tensor, prepared: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, .) and prepared action (N, D)."""
        latent = torch.cat([self.in_deter(deter), self.in_stoch(stoch)], -1)
        return self.gru(deter, self.share_latent(latent).float() + prepared)


class DenseRecurrence(nn.Module):
    """A dense GRU over stoch and action, projected together.

    Source: Dreamer, arXiv:1912.01603, and DreamerV2, arXiv:2010.02193, appendix.
    """

    def __init__(self, config: GRUConfig, stoch: int, action: int, style: Style) -> None:
        super().__init__()
        hidden, inputs = config.hidden, stoch + action
        self.in_stoch = Linear(stoch, hidden, fan_in=inputs)
        self.in_action = Linear(action, hidden, bias=False, fan_in=inputs)
        self.norm = norm_act(hidden, style)
        self.gru = GRU(hidden, config.deter, norm=config.cell == "layer_norm")

    def prepare(self, action: Tensor) -> Tensor:
        """(..., hidden) what ``action`` (..., A) adds to the GRU's input."""
        return self.in_action(action).float()

    def forward(self, deter: Tensor, stoch: Tensor, prepared: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, .) and prepared action (N, .)."""
        return self.gru(deter, self.norm(self.in_stoch(stoch).float() + prepared))


def make_gru(config: GRUConfig, stoch: int, action: int, style: Style) -> Recurrence:
    """The recurrence of the cell that ``config`` names."""
    recurrence = BlockRecurrence if config.cell == "block" else DenseRecurrence
    return recurrence(config, stoch, action, style)


class RSSM(Dynamics):
    """Carries (deter, stoch), with prior p(stoch | deter) and posterior q(stoch | deter, embed).

    Args:
        deter: D.
        embed: E, length of the encoder's output.
        recurrence: one step of deter; a module.
        latent_dist: family of the distributions over stoch.
        prior: predicts stoch from deter; a module.
        posterior: width of the posterior's hidden layer.
        style: norm and activation of that layer.
    """

    carry_names: tuple[str, ...] = ("deter", "stoch")
    remembers = True
    representation: tuple[nn.Module, ...] = ()

    def __init__(
        self,
        deter: int,
        embed: int,
        recurrence: Recurrence,
        latent_dist: LatentDist,
        prior: Prior,
        posterior: PosteriorConfig,
        style: Style,
    ) -> None:
        super().__init__()
        self.deter_size, self.latent_dist = deter, latent_dist
        self.recurrence, self.prior = recurrence, prior
        units = posterior.units
        self.post_deter = Linear(deter, units, bias=False, fan_in=deter + embed)
        self.post_embed = Linear(embed, units, fan_in=deter + embed)
        self.post_norm = norm_act(units, style)
        self.post_out = Linear(units, latent_dist.width)

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of zeros.

        Deviates: DreamerV2 and DayDreamer learn the initial deter.
        """
        deter = torch.zeros(n, self.deter_size, device=device)
        return Latent(deter, torch.zeros(n, *self.latent_dist.shape, device=device))

    def carry_of(self, latent: Latent) -> Carry:
        return latent.deter, latent.stoch

    def latent_of(self, carry: Carry) -> Latent:
        deter, stoch = carry
        return Latent(deter, stoch)

    def observe(
        self, start: Latent, steps: Recorded, uniform: Tensor, generator: Generator | None = None
    ) -> Latent:
        prepared = self._prepare(forget(steps.prev_action, steps.is_first))
        posterior_inputs = self.post_embed(steps.embed).float()
        noise = self.latent_dist.noise(uniform)
        if self.fuses and torch.is_grad_enabled() and noise.device.type == "cpu":
            return self._observe_fused(start, prepared, posterior_inputs, noise, steps.is_first)
        return self._observe_plainly(start, prepared, posterior_inputs, noise, steps.is_first)

    def _observe_plainly(
        self,
        start: Latent,
        prepared: Tensor,
        posterior_input: Tensor,
        noise: Tensor,
        is_first: Tensor,
    ) -> Latent:
        """(B, T) posteriors, from what was computed for all times (B, T, ...), step by step."""
        inputs = (x.unbind(1) for x in (prepared, posterior_input, noise, is_first))
        deter, stoch = start.deter, start.flat_stoch
        deters, samples, params = [], [], []
        for mapped, added, weights, first in zip(*inputs, strict=True):
            deter = self.recurrence(forget(deter, first), forget(stoch, first), mapped)
            sample, sample_params = self._posterior(deter, added, weights)
            stoch = sample.flatten(1)
            deters.append(deter)
            samples.append(sample)
            params.append(sample_params)
        return Latent(torch.stack(deters, 1), torch.stack(samples, 1), torch.stack(params, 1))

    @property
    def fuses(self) -> bool:
        """Whether ``observe_fused`` knows all of its parts; the plain form knows any."""
        cell, dist = self.recurrence, self.latent_dist
        if not (type(cell) is BlockRecurrence and type(dist) is Categorical and dist.unimix > 0):
            return False
        norms = (cell.in_deter.norm, cell.in_stoch.norm, cell.gru.norm, self.post_norm)
        return all(isinstance(n, NormRms) and n.activation is F.silu for n in norms)

    def _observe_fused(
        self,
        start: Latent,
        prepared: Tensor,
        posterior_input: Tensor,
        noise: Tensor,
        is_first: Tensor,
    ) -> Latent:
        """Give what ``_observe_plainly`` gives, by one operation."""
        assert isinstance(self.latent_dist, Categorical)
        noise, is_first = (x.transpose(0, 1).contiguous() for x in (noise, is_first))
        dtype = products_dtype(noise.device)
        sequence = Sequence(noise, is_first, self.latent_dist.unimix, dtype)
        inputs = (start.deter, start.flat_stoch, prepared, posterior_input)
        return Latent(*observe_fused(sequence, *inputs, self._cell_weights()))

    def _cell_weights(self) -> CellWeights:
        cell: Any = self.recurrence  # ``fuses`` says that they are these
        norm: Any = self.post_norm
        out: Any = self.post_out
        return CellWeights(
            *(cell.in_deter.linear.weight, cell.in_deter.linear.bias, cell.in_deter.norm.weight),
            *(cell.in_stoch.linear.weight, cell.in_stoch.linear.bias, cell.in_stoch.norm.weight),
            *(cell.share_latent.weight, cell.gru.inner.weight, cell.gru.inner.bias),
            *(cell.gru.norm.weight, cell.gru.gates.weight, cell.gru.gates.bias),
            *(self.post_deter.weight, norm.weight),
            *(out.weight, out.bias),
        )

    def imaginer(self, uniform: Tensor) -> Imagine | None:
        dist, prior = self.latent_dist, self.prior
        if torch.is_grad_enabled() or uniform.device.type != "cpu" or not self.fuses:
            return None
        if not isinstance(dist, Categorical) or type(prior) is not NetPrior:
            return None
        cell = Cell(self._cell_weights(), products_dtype(uniform.device))

        def imagine(t: int, latent: Latent, action: Tensor) -> Latent:
            deter, prepared = torch.empty_like(latent.deter), cell.prepare(self._prepare(action))
            cell.advance(latent.deter, latent.flat_stoch, prepared, deter)
            return Latent(deter, draw(prior.raw(deter), dist.noise(uniform[t]), dist.unimix)[2])

        return imagine

    def dream(self, uniform: Tensor) -> FusedDream | None:
        dist, prior = self.latent_dist, self.prior
        if uniform.device.type != "cpu" or not self.fuses or type(prior) is not NetPrior:
            return None
        assert isinstance(dist, Categorical)
        layers: Any = list(prior.layers)
        if not all(isinstance(d.norm, NormRms) and d.norm.activation is F.silu for d in layers):
            return None
        weights = [PriorLayer(d.linear.weight, d.linear.bias, d.norm.weight) for d in layers]
        out: Any = prior.out
        return FusedDream(
            self._prepare, self._cell_weights(), PriorWeights((*weights,), out.weight, out.bias),
            dist.noise(uniform), dist.unimix, products_dtype(uniform.device),
        )  # fmt: skip

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        prepared = self._prepare(forget(prev_action, is_first))
        deter, stoch = forget(latent.deter, is_first), forget(latent.flat_stoch, is_first)
        deter = self.recurrence(deter, stoch, prepared)
        posterior_input = self.post_embed(embed).float()
        noise = self.latent_dist.noise(uniform)
        return Latent(deter, *self._posterior(deter, posterior_input, noise))

    def imagination_starts(self, posterior: Latent, times: Tensor) -> Latent:
        return Latent(posterior.deter[:, times], posterior.stoch[:, times]).flat()

    def advance(
        self, latent: Latent, action: Tensor, reward: Tensor | None
    ) -> tuple[Tensor, Carry]:
        return self.recurrence(latent.deter, latent.flat_stoch, self._prepare(action)), ()

    def _prepare(self, action: Tensor) -> Tensor:
        """Clip and project ``action`` (..., A); DreamerV3's a / max(1, |a|) is this clipping."""
        return self.recurrence.prepare(action.clamp(-1.0, 1.0))

    def _posterior(
        self, deter: Tensor, posterior_input: Tensor, noise: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(N, ...) sample and its params, from deter (N, D) and projected embed (N, units)."""
        hidden = self.post_norm(self.post_deter(deter) + posterior_input)
        params = self.latent_dist.params(self.post_out(hidden))
        return self.latent_dist.sample(params, noise), params


if TYPE_CHECKING:  # mypy holds the classes to the protocol
    _: tuple[type[Recurrence], ...] = (BlockRecurrence, DenseRecurrence)

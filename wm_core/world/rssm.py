"""The recurrent state-space model: the posterior is part of the recurrence.

What does not depend on the recurrence is computed for all times at once before the loop: the
action's and the embedding's projections, the noise, and after the loop the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import Dense, Linear, Style, norm_act
from wm_core.nn.gru import GRU, BlockGRU
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.prior import make_prior
from wm_core.world.settings import WorldConfig
from wm_core.world.space import make_space


class BlockRecurrence(nn.Module):
    """deter, stoch and action, each projected, into a block-diagonal GRU.

    Source: DreamerV3, arXiv:2301.04104, "World model learning"; block-GRU as in the Nature code.
    """

    def __init__(self, stoch: int, action: int, config: WorldConfig, style: Style) -> None:
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
        """(..., D) the share of ``action`` (..., A) in the recurrence's input."""
        return self.share_action(self.in_action(action)).float()

    def forward(self, deter: Tensor, stoch: Tensor, prepared: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, .) and prepared action (N, D)."""
        latent = torch.cat([self.in_deter(deter), self.in_stoch(stoch)], -1)
        return self.gru(deter, self.share_latent(latent).float() + prepared)


class DenseRecurrence(nn.Module):
    """stoch and action, projected together, into a dense GRU.

    Source: Dreamer, arXiv:1912.01603, and DreamerV2, arXiv:2010.02193, appendix.
    """

    def __init__(self, stoch: int, action: int, config: WorldConfig, style: Style) -> None:
        super().__init__()
        hidden, inputs = config.hidden, stoch + action
        self.in_stoch = Linear(stoch, hidden, fan_in=inputs)
        self.in_action = Linear(action, hidden, bias=False, fan_in=inputs)
        self.norm = norm_act(hidden, style)
        self.gru = GRU(hidden, config.deter, norm=config.cell == "layer_norm")

    def prepare(self, action: Tensor) -> Tensor:
        """(..., hidden) the share of ``action`` (..., A) in the recurrence's input."""
        return self.in_action(action).float()

    def forward(self, deter: Tensor, stoch: Tensor, prepared: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, .) and prepared action (N, .)."""
        return self.gru(deter, self.norm(self.in_stoch(stoch).float() + prepared))


class RSSM(nn.Module):
    """(deter, stoch) with prior p(stoch | deter) and posterior q(stoch | deter, embed).

    Args:
        embed: E, size of the encoder's output.
        action: A.
        config: the sizes, the kind of latents and the cell.
    """

    carry_names = ("deter", "stoch")
    remembers = True
    representation: tuple[nn.Module, ...] = ()

    def __init__(self, embed: int, action: int, config: WorldConfig) -> None:
        super().__init__()
        deter, hidden = config.deter, config.hidden
        style = Style(config.norm, config.activation)
        self.deter_size, self.space = deter, make_space(config)
        recurrence = BlockRecurrence if config.cell == "block" else DenseRecurrence
        self.recurrence = recurrence(self.space.size, action, config, style)
        self.prior = make_prior(self.space, config)
        self.post_deter = Linear(deter, hidden, bias=False, fan_in=deter + embed)
        self.post_embed = Linear(embed, hidden, fan_in=deter + embed)
        self.post_norm = norm_act(hidden, style)
        self.post_out = Linear(hidden, self.space.width)

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of zeros.

        Deviates: DreamerV2 and DayDreamer learn the initial deter.
        """
        deter = torch.zeros(n, self.deter_size, device=device)
        return Latent(deter, torch.zeros(n, *self.space.shape, device=device))

    def carry_of(self, latent: Latent) -> Carry:
        return latent.deter, latent.stoch

    def latent_of(self, carry: Carry) -> Latent:
        deter, stoch = carry
        return Latent(deter, stoch)

    def observe(
        self,
        start: Latent,
        prev_action: Tensor,
        embed: Tensor,
        is_first: Tensor,
        uniform: Tensor,
        reward: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Latent:
        keep = (~is_first).float()
        prepared = self._prepare(prev_action * keep.unsqueeze(-1)).unbind(1)
        seen = self.post_embed(embed).float().unbind(1)
        noise = self.space.noise(uniform).unbind(1)
        keeps = keep.unsqueeze(-1).unbind(1)
        deter, stoch = start.deter, start.flat_stoch
        deters, stochs, params = [], [], []
        for t in range(prev_action.shape[1]):
            deter = self.recurrence(deter * keeps[t], stoch * keeps[t], prepared[t])
            drawn, told = self._posterior(deter, seen[t], noise[t])
            stoch = drawn.flatten(1)
            deters.append(deter)
            stochs.append(drawn)
            params.append(told)
        return Latent(torch.stack(deters, 1), torch.stack(stochs, 1), torch.stack(params, 1))

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        keep = (~is_first).float().unsqueeze(-1)
        prepared = self._prepare(prev_action * keep)
        deter = self.recurrence(latent.deter * keep, latent.flat_stoch * keep, prepared)
        seen = self.post_embed(embed).float()
        return Latent(deter, *self._posterior(deter, seen, self.space.noise(uniform)))

    def starts(self, posterior: Latent, times: Tensor) -> Latent:
        return Latent(posterior.deter[:, times], posterior.stoch[:, times]).flat()

    def imagine_step(
        self,
        latent: Latent,
        action: Tensor,
        uniform: Tensor,
        *,
        reward: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Latent:
        deter = self.recurrence(latent.deter, latent.flat_stoch, self._prepare(action))
        guess = self.prior(deter)
        params = guess if isinstance(guess, Tensor) else None
        return Latent(deter, self.prior.sample(guess, uniform, temperature), params)

    def foreseen(self, is_first: Tensor) -> Tensor | None:
        return None

    def _prepare(self, action: Tensor) -> Tensor:
        """DreamerV3's a / max(1, |a|) is the same as this clipping."""
        return self.recurrence.prepare(action.clamp(-1.0, 1.0))

    def _posterior(self, deter: Tensor, seen: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
        """(N, ...) draw and its params, from deter (N, D) and mapped embed (N, hidden)."""
        params = self.space.params(self.post_out(self.post_norm(self.post_deter(deter) + seen)))
        return self.space.sample(params, noise), params

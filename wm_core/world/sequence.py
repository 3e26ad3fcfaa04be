"""Dynamics whose posterior q(z | e) has no memory, so that sequences are observed at once.

With a transformer this is the TSSM, with state-space layers S4WM's model, with an LSTM the one
of World Models.  The backbone reads what was before a step and answers ``deter``:

* ``joint``: one token of z and a of the step before;
* ``split``: three tokens, the reward, z and a of the step before;
* ``actions``: one token, the action that led here; where an episode or a dream begins, a token of
  the state itself.  All states of a dream then follow from its start and its actions alone, and
  the gradient of a reward reaches every action directly.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm_core.nn.blocks import MLP, Linear, Style, norm_act
from wm_core.world.backbones import BACKBONES
from wm_core.world.base import Carry
from wm_core.world.latent import Latent
from wm_core.world.prior import make_prior
from wm_core.world.settings import WorldConfig
from wm_core.world.space import make_space


class FirstLinear(Linear):
    """A linear layer whose bias is drawn too, for it is all that an episode's first token is.

    A token near zero would be blown up by the layer norms behind it, rounding errors included:
    then no two runtimes agree on what an episode begins with.  So would be its gradient, by up to
    316 in each of them, and a deep model have lost all weights to NaN after one update.
    """

    def fill(self, generator: torch.Generator) -> None:
        super().fill(generator)
        assert self.bias is not None
        bound = self.fan_in**-0.5  # torch's own, which the papers' code has
        nn.init.uniform_(self.bias, -bound, bound, generator=generator)


class JointTokens(nn.Module):
    """z and a of the step before in one token.

    Source: TransDreamer, arXiv:2202.09481, section 3.1.
    """

    def __init__(self, stoch: int, action: int, width: int, style: Style) -> None:
        super().__init__()
        self.from_stoch = FirstLinear(stoch, width, fan_in=stoch + action)
        self.from_action = Linear(action, width, bias=False, fan_in=stoch + action)
        self.norm = norm_act(width, style)

    def forward(self, stoch: Tensor, action: Tensor, reward: Tensor | None) -> Tensor:
        """(..., 1, width) of flat stoch (..., .), action (..., A); the reward is not read."""
        return self.norm(self.from_stoch(stoch) + self.from_action(action)).unsqueeze(-2)


class SplitTokens(nn.Module):
    """The reward, z and a of the step before as a token each.

    Source: TWM, arXiv:2303.07109, dynamics model; their order z, a, r is turned here, because our
    reward arrives with the observation.
    """

    def __init__(self, stoch: int, action: int, width: int, style: Style) -> None:
        super().__init__()
        self.from_stoch = FirstLinear(stoch, width)
        self.from_action = FirstLinear(action, width)
        self.from_reward = FirstLinear(1, width)

    def forward(self, stoch: Tensor, action: Tensor, reward: Tensor | None) -> Tensor:
        """(..., 3, width) of flat stoch (..., .), action (..., A) and reward (...)."""
        assert reward is not None
        tokens = (
            self.from_reward(reward.unsqueeze(-1)),
            self.from_stoch(stoch),
            self.from_action(action),
        )
        return torch.stack(tokens, -2)


class SequenceModel(nn.Module):
    """Posterior without memory, a backbone over the past, and a prior from its answer.

    Args:
        embed: E, size of the encoder's output.
        action: A.
        config: the sizes, the latents, the backbone and its tokens.
    """

    def __init__(self, embed: int, action: int, config: WorldConfig) -> None:
        super().__init__()
        style = Style(config.norm, config.activation)
        self.deter_size, self.space = config.deter_size, make_space(config)
        self.staged = config.gradients == "staged"
        self.tokens = config.tokens
        self.posterior = nn.Sequential(
            MLP(embed, config.hidden, config.posterior_layers, style),
            Linear(config.hidden if config.posterior_layers else embed, self.space.width),
        )
        self.backbone = BACKBONES[config.backbone](config)
        reader = SplitTokens if self.tokens == "split" else JointTokens
        self.reader = reader(self.space.size, action, self.backbone.width, style)
        self.prior = make_prior(self.space, config)
        self.representation: tuple[nn.Module, ...] = (self.posterior,)
        self.remembers = self.backbone.remembers
        self.carry_names = (*self.backbone.names, "stoch")

    # ------------------------------------------------------------------ carry

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of zeros whose memory holds nothing."""
        deter = torch.zeros(n, self.deter_size, device=device)
        stoch = torch.zeros(n, *self.space.shape, device=device)
        return Latent(deter, stoch, None, self.backbone.initial(n))

    def carry_of(self, latent: Latent) -> Carry:
        return (*latent.memory, latent.stoch)

    def latent_of(self, carry: Carry) -> Latent:
        *memory, stoch = carry
        deter = stoch.new_zeros(stoch.shape[0], self.deter_size)  # follows from the memory
        return Latent(deter, stoch, None, tuple(memory))

    # ------------------------------------------------------------------ along data

    def glimpse(self, embed: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """(..., *space.shape) draw from q(z | e) and its params, of ``embed`` (..., E) alone."""
        params = self.space.params(self.posterior(embed))
        return self.space.sample(params, self.space.noise(uniform)), params

    def observe(
        self,
        start: Latent,
        prev_action: Tensor,
        embed: Tensor,
        is_first: Tensor,
        uniform: Tensor,
        reward: Tensor,
        generator: torch.Generator | None = None,
    ) -> Latent:
        stoch, params = self.glimpse(embed, uniform)
        flat = stoch.flatten(2)
        flat = flat.detach() if self.staged else flat
        keep = (~is_first).float()
        before = torch.cat([start.flat_stoch.unsqueeze(1), flat[:, :-1]], 1) * keep.unsqueeze(-1)
        action = prev_action.clamp(-1.0, 1.0) * keep.unsqueeze(-1)
        paid = torch.cat([torch.zeros_like(reward[:, :1]), reward[:, :-1]], 1) * keep
        memory, begins = start.memory, is_first
        if self.tokens == "actions":
            begins, memory = _with_first(is_first), ()
            at_start = begins.unsqueeze(-1)
            before, action = flat * at_start, action * ~at_start
        elif not self.remembers:
            memory = ()  # windows of replay begin without a past
        x = self.reader(before, action, paid)
        deter, history = self.backbone(x, begins, memory, generator)
        return Latent(deter, stoch, params, history)

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        stoch, params = self.glimpse(embed, uniform)
        keep = (~is_first).float().unsqueeze(-1)
        x = self.reader(latent.flat_stoch * keep, prev_action.clamp(-1.0, 1.0) * keep, None)
        deter, memory = self.backbone.step(x, is_first, latent.memory)
        return Latent(deter, stoch, params, memory)

    # ------------------------------------------------------------------ in imagination

    def starts(self, posterior: Latent, times: Tensor) -> Latent:
        there = Latent(posterior.deter[:, times], posterior.stoch[:, times]).flat()
        if self.tokens == "actions":  # a dream's past is its start alone
            return self._begin(there)
        memory = self.backbone.at(posterior.memory, times)
        return Latent(there.deter, there.stoch, None, tuple(m.detach() for m in memory))

    def _begin(self, latent: Latent) -> Latent:
        """(N,) ``latent`` with a memory that holds a token of itself and nothing else."""
        flat = latent.flat_stoch
        no_action = flat.new_zeros(len(flat), self.reader.from_action.weight.shape[1])
        first = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        empty = self.backbone.initial(len(flat))
        deter, memory = self.backbone.step(self.reader(flat, no_action, None), first, empty)
        return Latent(deter, latent.stoch, None, memory)

    def imagine_step(
        self,
        latent: Latent,
        action: Tensor,
        uniform: Tensor,
        *,
        reward: Tensor | None = None,
        temperature: float = 1.0,
    ) -> Latent:
        action = action.clamp(-1.0, 1.0)
        before = latent.flat_stoch
        if self.tokens == "actions":
            before = torch.zeros_like(before)
        going_on = torch.zeros(len(action), dtype=torch.bool, device=action.device)
        x = self.reader(before, action, reward)
        deter, memory = self.backbone.step(x, going_on, latent.memory)
        return self._draw(deter, uniform, memory, temperature)

    def imagine_all(self, start: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """(N, T_imag) what follows from ``start`` (N,) and actions alone, all at once.

        Args:
            start: (N,) from ``starts``; for ``actions`` tokens only.
            action: (N, T_imag, A).
            uniform: (N, T_imag, *prior.noise_shape) in [0, 1).
        """
        if self.tokens != "actions":
            raise ValueError(f"imagine_all wants tokens 'actions', got {self.tokens!r}")
        action = action.clamp(-1.0, 1.0)
        going_on = torch.zeros(action.shape[:2], dtype=torch.bool, device=action.device)
        before = start.flat_stoch.new_zeros(*action.shape[:2], self.space.size)
        x = self.reader(before, action, None)
        deter, history = self.backbone(x, going_on, start.memory, None)
        return self._draw(deter, uniform, history, 1.0)

    def foreseen(self, is_first: Tensor) -> Tensor | None:
        return ~_with_first(is_first) if self.tokens == "actions" else None

    def _draw(self, deter: Tensor, uniform: Tensor, memory: Any, temperature: float) -> Latent:
        guess = self.prior(deter)
        params = guess if isinstance(guess, Tensor) else None
        return Latent(deter, self.prior.sample(guess, uniform, temperature), params, memory)


def _with_first(is_first: Tensor) -> Tensor:
    """(B, T) ``is_first`` with the first step of every window set."""
    return torch.cat([torch.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)

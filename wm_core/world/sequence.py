"""Dynamics whose posterior q(z | e) reads no past, so that whole sequences are observed at once.

With a transformer this is the TSSM, with state-space layers S4WM's model, with an LSTM the one
of World Models.  The backbone reads the steps before and answers ``deter``; the tokens of a step:

* ``joint``: one token of z and a of the step before;
* ``split``: three tokens, the reward, z and a of the step before;
* ``actions``: one token, the action that led here; where an episode or imagination begins, a token
  of the state itself.  All imagined states then follow from the start and the actions alone, and
  the gradient of a reward reaches every action directly.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn

from wm_core.nn.blocks import ACTIVATIONS, MLP, Linear, Style, forget, norm_act
from wm_core.world.base import Backbone, Carry, Dynamics, Recorded
from wm_core.world.latent import Latent
from wm_core.world.latent_dist import LatentDist
from wm_core.world.part_settings import PosteriorConfig, TokenLayout
from wm_core.world.prior import Prior


class FirstLinear(Linear):
    """A linear layer whose bias is random too, because an episode's first token is the bias alone.

    The layer norms behind it would amplify a token near zero, rounding errors included, so that
    two runtimes would disagree on an episode's first step.  They would amplify its gradient too,
    each by up to 316: a deep model had all weights NaN after one update.
    """

    def fill(self, generator: Generator) -> None:
        super().fill(generator)
        assert self.bias is not None
        bound = self.fan_in**-0.5  # torch's own, which the papers' code has
        nn.init.uniform_(self.bias, -bound, bound, generator=generator)


class JointTokens(nn.Module):
    """Puts z and a of the step before into one token.

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
    """Makes a token each of the reward, z and a of the step before.

    Source: TWM, arXiv:2303.07109, dynamics model; their order z, a, r is turned here, because our
    reward arrives with the observation.  With ``active``, an activation follows the reward's and
    z's, as in its code.
    """

    def __init__(
        self, stoch: int, action: int, width: int, style: Style, *, active: bool = False
    ) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[style.activation] if active else nn.Identity()
        self.from_stoch = FirstLinear(stoch, width)
        self.from_action = FirstLinear(action, width)
        self.from_reward = FirstLinear(1, width)

    def forward(self, stoch: Tensor, action: Tensor, reward: Tensor | None) -> Tensor:
        """(..., 3, width) of flat stoch (..., .), action (..., A) and reward (...)."""
        assert reward is not None
        tokens = (
            self.activation(self.from_reward(reward.unsqueeze(-1))),
            self.activation(self.from_stoch(stoch)),
            self.from_action(action),
        )
        return torch.stack(tokens, -2)


class SequenceModel(Dynamics):
    """Carries (memory, stoch): a posterior q(z | e), a backbone over the past, and a prior.

    Args:
        deter: D.
        embed: E, length of the encoder's output.
        action: A.
        backbone: reads the past; a module.
        latent_dist: family of the distributions over stoch.
        prior: predicts stoch from deter; a module.
        posterior: layers of the posterior.
        style: norm and activation of those layers.
        tokens: what the backbone reads of a step.
        staged: whether the backbone's loss leaves the latents alone.
        active: whether an activation follows split tokens.
    """

    def __init__(
        self,
        deter: int,
        embed: int,
        action: int,
        backbone: Backbone,
        latent_dist: LatentDist,
        prior: Prior,
        posterior: PosteriorConfig,
        style: Style,
        tokens: TokenLayout,
        staged: bool,
        active: bool = False,
    ) -> None:
        super().__init__()
        self.deter_size, self.latent_dist = deter, latent_dist
        self.staged, self.tokens = staged, tokens
        self.posterior = nn.Sequential(
            MLP(embed, posterior.units, posterior.layers, style),
            Linear(posterior.units if posterior.layers else embed, latent_dist.width),
        )
        self.backbone = backbone
        sizes = (latent_dist.size, action, backbone.width)
        self.reader: SplitTokens | JointTokens = (
            SplitTokens(*sizes, style, active=active)
            if tokens == "split"
            else JointTokens(*sizes, style)
        )
        self.prior = prior
        self.representation: tuple[nn.Module, ...] = (self.posterior,)
        self.remembers = backbone.remembers
        self.carry_names: tuple[str, ...] = (*backbone.names, "stoch")

    # ------------------------------------------------------------------ carry

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of zeros with an empty memory."""
        deter = torch.zeros(n, self.deter_size, device=device)
        stoch = torch.zeros(n, *self.latent_dist.shape, device=device)
        return Latent(deter, stoch, None, self.backbone.initial(n))

    def carry_of(self, latent: Latent) -> Carry:
        return (*latent.memory, latent.stoch)

    def latent_of(self, carry: Carry) -> Latent:
        *memory, stoch = carry
        deter = stoch.new_zeros(stoch.shape[0], self.deter_size)  # follows from the memory
        return Latent(deter, stoch, None, tuple(memory))

    # ------------------------------------------------------------------ along data

    def encode_posterior(self, embed: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """Sample the posterior q(z | e) of embeddings alone.

        Args:
            embed: (..., E).
            uniform: (..., *latent_dist.shape) in [0, 1).

        Returns:
            (..., *latent_dist.shape) sample, and (..., ., .) parameters of its distribution.
        """
        params = self.latent_dist.params(self.posterior(embed))
        return self.latent_dist.sample(params, self.latent_dist.noise(uniform)), params

    def observe(
        self, start: Latent, steps: Recorded, uniform: Tensor, generator: Generator | None = None
    ) -> Latent:
        prev_action, embed, is_first, reward = steps
        stoch, params = self.encode_posterior(embed, uniform)
        flat = stoch.flatten(2)
        flat = flat.detach() if self.staged else flat
        prev_stoch = torch.cat([start.flat_stoch.unsqueeze(1), flat[:, :-1]], 1)
        prev_stoch = forget(prev_stoch, is_first)
        action = forget(prev_action.clamp(-1.0, 1.0), is_first)
        prev_reward = torch.cat([torch.zeros_like(reward[:, :1]), reward[:, :-1]], 1)
        prev_reward = forget(prev_reward, is_first)
        memory, forgets = start.memory, is_first
        if self.tokens == "actions":
            forgets, memory = _with_first(is_first), ()
            prev_stoch, action = forget(flat, ~forgets), forget(action, forgets)
        elif not self.remembers:
            memory = ()  # windows of replay begin without a past
        x = self.reader(prev_stoch, action, prev_reward)
        deter, history = self.backbone(x, forgets, memory, generator)
        return Latent(deter, stoch, params, history)

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        stoch, params = self.encode_posterior(embed, uniform)
        action = forget(prev_action.clamp(-1.0, 1.0), is_first)
        x = self.reader(forget(latent.flat_stoch, is_first), action, None)
        # attention gives what it must not see a weight of zero, which NaN there survives
        memory = tuple(forget(m, is_first) for m in latent.memory)
        deter, memory = self.backbone.step(x, is_first, memory)
        return Latent(deter, stoch, params, memory)

    # ------------------------------------------------------------------ in imagination

    def imagination_starts(self, posterior: Latent, times: Tensor) -> Latent:
        start = Latent(posterior.deter[:, times], posterior.stoch[:, times]).flat()
        if self.tokens == "actions":  # imagination's past is its start alone
            return self._begin(start)
        memory = self.backbone.at(posterior.memory, times)
        return Latent(start.deter, start.stoch, None, tuple(m.detach() for m in memory))

    def _begin(self, latent: Latent) -> Latent:
        """(N,) ``latent`` with a memory that holds the token of its own state alone."""
        flat = latent.flat_stoch
        no_action = flat.new_zeros(len(flat), self.reader.from_action.weight.shape[1])
        first = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
        empty = self.backbone.initial(len(flat))
        deter, memory = self.backbone.step(self.reader(flat, no_action, None), first, empty)
        return Latent(deter, latent.stoch, None, memory)

    def advance(
        self, latent: Latent, action: Tensor, reward: Tensor | None
    ) -> tuple[Tensor, Carry]:
        action = action.clamp(-1.0, 1.0)
        prev_stoch = latent.flat_stoch
        if self.tokens == "actions":
            prev_stoch = torch.zeros_like(prev_stoch)
        is_first = torch.zeros(len(action), dtype=torch.bool, device=action.device)
        x = self.reader(prev_stoch, action, reward)
        return self.backbone.step(x, is_first, latent.memory)

    def imagine_all(self, start: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """(N, T_imag) latents that follow from ``start`` (N,) and actions, in one parallel pass.

        Args:
            start: (N,) from ``imagination_starts``; for ``actions`` tokens only.
            action: (N, T_imag, A).
            uniform: (N, T_imag, *prior.noise_shape) in [0, 1).
        """
        if self.tokens != "actions":
            raise ValueError(f"imagine_all: expected tokens 'actions', got {self.tokens!r}")
        action = action.clamp(-1.0, 1.0)
        is_first = torch.zeros(action.shape[:2], dtype=torch.bool, device=action.device)
        prev_stoch = start.flat_stoch.new_zeros(*action.shape[:2], self.latent_dist.size)
        x = self.reader(prev_stoch, action, None)
        deter, history = self.backbone(x, is_first, start.memory, None)
        return self.sampled(deter, history, uniform)

    def predictable(self, is_first: Tensor) -> Tensor | None:
        return ~_with_first(is_first) if self.tokens == "actions" else None


def _with_first(is_first: Tensor) -> Tensor:
    """(B, T) ``is_first`` with the first step of every window set."""
    return torch.cat([torch.ones_like(is_first[:, :1]), is_first[:, 1:]], 1)

"""The recurrent state-space model with categorical latents and a block-diagonal GRU.

What does not depend on the recurrence is computed for all times at once before the loop: the
action's and the embedding's projections, the noise, and after the loop the prior.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from wm_core.config import WorldConfig
from wm_core.nn.blocks import MLP, Dense, Linear, NormSilu
from wm_core.nn.dists import race_weights, sample_onehot, unimix_log_probs
from wm_core.nn.gru import BlockGRU
from wm_core.world.latent import Latent


class RSSM(nn.Module):
    """(deter, stoch) with prior p(stoch | deter) and posterior q(stoch | deter, embed).

    Args:
        embed: E, size of the encoder's output.
        action: A.
        config: the sizes.

    Source: DreamerV3, arXiv:2301.04104, equation 3; block-GRU as in the Nature code.
    """

    def __init__(self, embed: int, action: int, config: WorldConfig) -> None:
        super().__init__()
        deter, hidden = config.deter, config.hidden
        self.groups, self.classes, self.unimix = config.groups, config.classes, config.unimix
        self.deter_size, flat = deter, config.groups * config.classes
        self.in_deter = Dense(deter, hidden)
        self.in_stoch = Dense(flat, hidden)
        self.in_action = Dense(action, hidden)
        self.gru = BlockGRU(deter, config.blocks, 3 * hidden)
        fan_in = self.gru.fan_in
        self.share_latent = Linear(2 * hidden, deter, bias=False, fan_in=fan_in)
        self.share_action = Linear(hidden, deter, bias=False, fan_in=fan_in)
        self.prior_layers = nn.Sequential(
            MLP(deter, hidden, config.prior_layers), Linear(hidden, flat)
        )
        self.post_deter = Linear(deter, hidden, bias=False, fan_in=deter + embed)
        self.post_embed = Linear(embed, hidden, fan_in=deter + embed)
        self.post_norm = NormSilu(hidden)
        self.post_out = Linear(hidden, flat)

    def initial(self, n: int, device: torch.device | None = None) -> Latent:
        """(n,) latents of zeros."""
        deter = torch.zeros(n, self.deter_size, device=device)
        return Latent(deter, torch.zeros(n, self.groups, self.classes, device=device))

    def noise_shape(self) -> tuple[int, ...]:
        """(S, K): the uniforms that one latent takes."""
        return (self.groups, self.classes)

    def observe(
        self, start: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(B, T) posteriors along data.

        Args:
            start: (B,) latent of the step before the first; ignored where ``is_first``.
            prev_action: (B, T, A) action that led to each step.
            embed: (B, T, E).
            is_first: (B, T) bool; the past is zeroed there.
            uniform: (B, T, S, K) in [0, 1).
        """
        keep = (~is_first).float()
        action = self._map_action(prev_action * keep.unsqueeze(-1)).unbind(1)
        seen = self.post_embed(embed).float().unbind(1)
        race = race_weights(uniform).unbind(1)
        keeps = keep.unsqueeze(-1).unbind(1)
        deter, stoch = start.deter, start.stoch.flatten(1)
        deters, stochs, logits = [], [], []
        for t in range(prev_action.shape[1]):
            deter = self._advance(deter * keeps[t], stoch * keeps[t], action[t])
            drawn, log_probs = self._posterior(deter, seen[t], race[t])
            stoch = drawn.flatten(1)
            deters.append(deter)
            stochs.append(drawn)
            logits.append(log_probs)
        return Latent(torch.stack(deters, 1), torch.stack(stochs, 1), torch.stack(logits, 1))

    def observe_step(
        self, latent: Latent, prev_action: Tensor, embed: Tensor, is_first: Tensor, uniform: Tensor
    ) -> Latent:
        """(N,) posterior after one more observation: ``observe`` without the axis T."""
        keep = (~is_first).float().unsqueeze(-1)
        action = self._map_action(prev_action * keep)
        deter = self._advance(latent.deter * keep, latent.stoch.flatten(1) * keep, action)
        seen = self.post_embed(embed).float()
        stoch, log_probs = self._posterior(deter, seen, race_weights(uniform))
        return Latent(deter, stoch, log_probs)

    def imagine_step(self, latent: Latent, action: Tensor, uniform: Tensor) -> Latent:
        """(N,) draw from the prior after ``action`` (N, A), with uniforms (N, S, K)."""
        deter = self._advance(latent.deter, latent.stoch.flatten(1), self._map_action(action))
        log_probs = self.prior(deter)
        return Latent(deter, sample_onehot(log_probs.exp(), race_weights(uniform)), log_probs)

    def prior(self, deter: Tensor) -> Tensor:
        """(..., S, K) log-probabilities before seeing the observation, of ``deter`` (..., D)."""
        return self._log_probs(self.prior_layers(deter))

    def _map_action(self, action: Tensor) -> Tensor:
        """(..., D) the action's share in the GRU's input, of ``action`` (..., A).

        An action beyond [-1, 1] counts as its clipped self, as the robot will send it; DreamerV3's
        a / max(1, |a|) is the same.
        """
        return self.share_action(self.in_action(action.clamp(-1.0, 1.0))).float()

    def _advance(self, deter: Tensor, stoch: Tensor, action: Tensor) -> Tensor:
        """(N, D) next deter from deter (N, D), flat stoch (N, S K) and mapped action (N, D)."""
        latent = torch.cat([self.in_deter(deter), self.in_stoch(stoch)], -1)
        return self.gru(deter, self.share_latent(latent).float() + action)

    def _posterior(self, deter: Tensor, seen: Tensor, race: Tensor) -> tuple[Tensor, Tensor]:
        """(N, S, K) draw and its log-probabilities, from deter (N, D) and mapped embed (N, U)."""
        x = self.post_norm(self.post_deter(deter) + seen)
        log_probs = self._log_probs(self.post_out(x))
        return sample_onehot(log_probs.exp(), race), log_probs

    def _log_probs(self, flat: Tensor) -> Tensor:
        """(..., S, K) log-probabilities with unimix, of logits (..., S K)."""
        logits = flat.unflatten(-1, (self.groups, self.classes))
        return unimix_log_probs(logits, self.unimix)

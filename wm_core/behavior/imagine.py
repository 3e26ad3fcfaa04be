"""Roll-outs of the actor inside the world model, without a graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from wm_core.behavior.actor import Actor
from wm_core.nn.dists import normal_noise
from wm_core.world.base import Dynamics
from wm_core.world.latent import Latent


@dataclass(frozen=True, slots=True)
class Imagined:
    """A roll-out from N starts; nothing in it has a gradient."""

    feat: Tensor  #: (N, T_imag + 1, F), the start first
    action: Tensor  #: (N, T_imag, A), chosen in the states 0 .. T_imag - 1


@torch.no_grad()
def imagine(
    dynamics: Dynamics, actor: Actor, start: Latent, horizon: int, generator: torch.Generator
) -> Imagined:
    """Let ``actor`` act for ``horizon`` steps in ``dynamics``, from (N,) ``start``."""
    n, device = start.deter.shape[0], start.deter.device
    uniform = torch.rand((horizon, n, *dynamics.noise_shape()), generator=generator, device=device)
    noise = normal_noise(
        torch.rand((horizon, n, actor.action_size), generator=generator, device=device)
    )
    latent, feats, actions = start, [start.feat], []
    for t in range(horizon):
        action = actor.dist(feats[-1]).sample(noise[t])
        latent = dynamics.imagine_step(latent, action, uniform[t])
        feats.append(latent.feat)
        actions.append(action)
    return Imagined(torch.stack(feats, 1), torch.stack(actions, 1))

"""Rolls the actor out in the world model, with or without a graph through its dynamics."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from wm_core.behavior.actor import Actor
from wm_core.nn import joined
from wm_core.nn.blocks import products_dtype
from wm_core.nn.dists import ActionDist
from wm_core.world.base import Imagine
from wm_core.world.imagine_fused import FusedDream
from wm_core.world.latent import Latent
from wm_core.world.sequence import SequenceModel
from wm_core.world.settings import Reads
from wm_core.world.world_model import WorldModel


@dataclass(frozen=True, slots=True)
class Imagined:
    """Imagined rollouts from N starts."""

    #: (N, T_imag + 1), the start first; without memory; without a graph in the products' type
    latent: Latent
    action: Tensor  #: (N, T_imag, A), chosen in the states 0 .. T_imag - 1
    dist: ActionDist | None = None  #: (N, T_imag, A) that they were drawn from, where it is known


@contextlib.contextmanager
def frozen(*modules: nn.Module) -> Iterator[None]:
    """Let gradients pass through ``modules`` without reaching their weights, for a while."""
    weights = [p for m in modules for p in m.parameters() if p.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


def imagine(
    world: WorldModel,
    actor: Actor,
    start: Latent,
    horizon: int,
    generator: torch.Generator,
    *,
    reads: Reads = "feat",
    differentiable: bool = False,
) -> Imagined:
    """Let ``actor`` act for ``horizon`` steps in ``world``, from (N,) ``start``.

    Args:
        world: its weights get no gradient from what is imagined.
        actor: its inputs have no gradient: a reward's gradient reaches an action through the
            dynamics alone, not through later inputs of the actor.
        start: (N,) as ``Dynamics.imagination_starts`` gives it.
        horizon: T_imag.
        generator: of every draw.
        reads: what of a latent the actor reads.
        differentiable: keep the graph from rewards to actions.
    """
    n, device = start.deter.shape[0], start.deter.device

    def rand(*shape: int) -> Tensor:
        return joined.rand((horizon, n, *shape), generator=generator, device=device, dim=1)

    uniform, noise = rand(*world.dynamics.prior.noise_shape), actor.noise(rand(actor.action_size))
    if not differentiable:
        with torch.no_grad():
            dtype = products_dtype(device)  # to which whatever reads the states casts them
            return _stepwise(world.imaginer(uniform), actor, start, noise, reads, dtype)
    with frozen(world):
        if world.config.tokens == "actions":
            return _at_once(world, actor, start, uniform, noise, reads)
        dream = world.dynamics.dream(uniform)
        if dream is not None:
            return _by_hand(dream, actor, start, noise, reads)
        return _roll_out(world, actor, start, uniform, noise, reads)


def _roll_out(
    world: WorldModel, actor: Actor, start: Latent, uniform: Tensor, noise: Tensor, reads: Reads
) -> Imagined:
    return _stepwise(world.imaginer(uniform), actor, start, noise, reads)


def _stepwise(
    step: Imagine,
    actor: Actor,
    start: Latent,
    noise: Tensor,
    reads: Reads,
    dtype: torch.dtype | None = None,
) -> Imagined:
    latent, latents, actions = start, [start], []
    for t in range(len(noise)):
        action = actor.dist(latent.read(reads).detach()).sample(noise[t])
        latent = step(t, latent, action)
        latents.append(latent)
        actions.append(action)
    return Imagined(_stacked(latents, dtype), torch.stack(actions, 1))


def _stacked(latents: list[Latent], dtype: torch.dtype | None) -> Latent:
    """Stack T latents (N,) to (N, T), cast to ``dtype``; without their memory."""
    deter = torch.stack([latent.deter.to(dtype=dtype) for latent in latents], 1)
    return Latent(deter, torch.stack([latent.stoch.to(dtype=dtype) for latent in latents], 1))


def _by_hand(
    dream: FusedDream, actor: Actor, start: Latent, noise: Tensor, reads: Reads
) -> Imagined:
    """Give the same rollout with a graph that knows states and actions, and no step between."""
    with torch.no_grad():
        rolled = _stepwise(dream.step, actor, start, noise, reads)
    states = rolled.latent
    # all states but the last, without a copy of those
    dist = actor.dist(Latent(states.deter[:, :-1], states.stoch[:, :-1]).read(reads))
    sample = dist.sample(noise.transpose(0, 1))
    action = rolled.action + (sample - sample.detach())  # what was taken, to the last bit
    return Imagined(dream.differentiable(states, action), action, dist)


def _at_once(
    world: WorldModel, actor: Actor, start: Latent, uniform: Tensor, noise: Tensor, reads: Reads
) -> Imagined:
    """Give the same rollout with a graph that is one parallel pass over the actions.

    Source: Ma et al. 2024, "Do Transformer World Models Give Better Policy Gradients?",
    arXiv:2402.05290: states follow from the start and the actions only, and what the policy reads
    has no gradient.
    """
    assert isinstance(world.dynamics, SequenceModel)
    with torch.no_grad():
        states = _roll_out(world, actor, start, uniform, noise, reads).latent
    action = actor.dist(states.read(reads)[:, :-1]).sample(noise.transpose(0, 1))
    after = world.dynamics.imagine_all(start, action, uniform.transpose(0, 1))
    deter = torch.cat([start.deter.unsqueeze(1), after.deter], 1)
    return Imagined(Latent(deter, torch.cat([start.stoch.unsqueeze(1), after.stoch], 1)), action)

"""``wm bench gradient`` measures how a reward's gradient reaches the actions before it.

In a dream of H steps, the norm of d reward[k] / d action[0] is taken for every k: what is left of
a reward's gradient, or has become of it, k steps back.  Through a recurrent model it passes every
state in between, and so it does through a model of a history of states; through one that reads
the start and the actions alone it goes directly.

Source: Ma et al. 2024, "Do Transformer World Models Give Better Policy Gradients?",
arXiv:2402.05290, whose claim this is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import tyro
from pydantic import Field
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.behavior.imagine import frozen
from wm_core.bench.contestants import ContestantSettings, contestants
from wm_core.bench.learner import ACTION_SIZE, random_batch
from wm_core.bench.report import Report
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.library.run_folder import load_settings
from wm_core.nn.dists import each_group, sample_onehot
from wm_core.replay.sampler import Sampler
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.rollout_video import sample_windows
from wm_core.world.latent import Latent, to_device
from wm_core.world.sequence import SequenceModel
from wm_core.world.world_model import WorldModel

KINDS = ("dreamer_v3", "transdreamer", "awm")  #: recurrent, of a history, of actions alone
CACHE_BYTES = 64_000_000

Read = Callable[[Latent], Tensor]  #: (N, H) numbers of latents (N, H)


class GradientBenchSettings(ContestantSettings):
    """Measure how far back the gradient of a dreamt reward reaches."""

    # Networks of presets are untrained and have no reward yet: the reward is a fixed random
    # direction of what their heads read, so only the shape over the steps means something.

    presets: tuple[str, ...] = Field(
        KINDS, description="Untrained presets to measure, where no runs are given"
    )
    sizes: tuple[str, ...] = Field(("micro",), description="Sizes of the untrained networks")
    runs: tuple[Path, ...] = Field(
        (), description="Run folders: their newest checkpoints, on the steps they learnt from"
    )
    horizon: int = Field(15, gt=0, description="Steps of a dream, 1 or more")
    starts: int = Field(32, gt=0, description="Dreams, whose median is reported")
    seed: int = Field(0, description="Seed of starts, actions and draws")


class Dream(NamedTuple):
    """What a dream begins with and what is done in it."""

    start: Latent  #: (N,)
    action: Tensor  #: (N, H, A)
    uniform: Tensor  #: (N, H, *prior.noise_shape) in [0, 1)


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(GradientBenchSettings, args=list(argv), prog="wm bench gradient")
    torch.set_num_threads(1)
    with Report("wm bench gradient", as_json=settings.json_) as report:
        for name, agent, norms in measured(settings, report):
            parameters = sum(p.numel() for p in agent.parameters() if p.requires_grad)
            report.add(f"gradient/{name}/parameters", parameters, "")
            for k, norm in enumerate(norms.median(0).values.tolist(), 1):
                report.add(f"gradient/{name}/step_{k}", norm, "")
    return 0


def measured(
    settings: GradientBenchSettings, report: Report
) -> Iterator[tuple[str, AgentCore, Tensor]]:
    """Yield name, agent and norms (N, H) of all that is to be measured, one after another."""
    for folder in settings.runs:
        report.progress(f"{folder}: {settings.starts} dreams of {settings.horizon} steps")
        agent, norms = of_run(folder, settings)
        yield folder.name, agent, norms
    for contestant in () if settings.runs else contestants(settings):
        report.progress(f"{contestant.name}: {settings.starts} dreams, untrained")
        spec = Spec(action=ActionSpec(low=(-1.0,) * ACTION_SIZE, high=(1.0,) * ACTION_SIZE))
        generator = torch.Generator().manual_seed(settings.seed)
        agent = AgentCore(spec, contestant.config(), generator=generator)
        batch = random_batch(contestant.config(), generator)
        dream = make_dream(agent, batch, settings.starts, settings.horizon, generator)
        read = random_reading(agent.world, generator)
        yield f"{contestant.preset}/{contestant.size}", agent, from_start(agent.world, dream, read)


def of_run(folder: Path, settings: GradientBenchSettings) -> tuple[AgentCore, Tensor]:
    """Load the newest agent of a run; returns it and the norms (N, H) of its own reward.

    Raises:
        StoreError: where there is no checkpoint, or no window to dream from.
        SettingsError: where there is no such run.
    """
    before = load_settings(folder)
    trained = checkpoint.load_agent(folder)
    world, replay = trained.agent.world, trained.config.replay
    source = Store(before.store_root, cache_bytes=CACHE_BYTES)
    source.refresh()
    try:
        rng = np.random.default_rng(settings.seed)
        sampler = Sampler(
            source, batch=settings.starts, length=replay.length, rng=rng, online_queue=False
        )
        batch = to_device(sample_windows(sampler, settings.starts))
    finally:
        source.close()
    generator = torch.Generator().manual_seed(settings.seed)
    dream = make_dream(trained.agent, batch, settings.starts, settings.horizon, generator)
    return trained.agent, from_start(world, dream, lambda latent: world.predict(latent)[0])


def make_dream(
    agent: AgentCore, batch: Batch[Tensor], starts: int, horizon: int, generator: torch.Generator
) -> Dream:
    """Make dreams from random steps of ``batch`` (B, T), with random actions.

    Args:
        agent: on the CPU.
        batch: recorded windows.
        starts: N, how many.
        horizon: H, steps of each.
        generator: of every draw.
    """
    world, spec = agent.world, agent.spec.action
    dynamics, (B, T) = world.dynamics, batch.reward.shape
    if world.config.tokens == "actions" and horizon >= world.config.transformer.window:
        raise SettingsError(
            f"--horizon {horizon}: expected less than the {world.config.transformer.window} "
            "tokens of world.transformer.window, beyond which the start is forgotten"
        )

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator)

    with torch.no_grad():
        posterior, _ = world.observe(
            batch, agent.initial(B), rand(B, T, *dynamics.latent_dist.shape)
        )
        times = torch.randint(0, T, (-(-starts // B),), generator=generator)
        start = dynamics.imagination_starts(posterior, times)
    kept = torch.arange(starts)
    memory = tuple(m[kept] for m in start.memory)
    start = Latent(start.deter[kept], start.stoch[kept], None, memory)
    action = 2.0 * rand(starts, horizon, spec.size) - 1.0
    if spec.discrete:
        action = each_group(
            sample_onehot, spec.groups, torch.ones_like(action), rand(*action.shape)
        )
    return Dream(start, action, rand(starts, horizon, *dynamics.prior.noise_shape))


def dreamt(world: WorldModel, dream: Dream, action: Tensor) -> Latent:
    """(N, H) latents that follow from the start of ``dream`` under ``action`` (N, H, A)."""
    dynamics = world.dynamics
    if world.config.tokens == "actions":
        assert isinstance(dynamics, SequenceModel)
        return dynamics.imagine_all(dream.start, action, dream.uniform)
    latent, latents = dream.start, []
    for t in range(action.shape[1]):
        latent = world.imagine_step(latent, action[:, t], dream.uniform[:, t])
        latents.append(latent)
    return Latent(
        torch.stack([latent.deter for latent in latents], 1),
        torch.stack([latent.stoch for latent in latents], 1),
    )


def from_start(world: WorldModel, dream: Dream, read: Read) -> Tensor:
    """(N, H) norms of d reward[k] / d action[0], the reward being what ``read`` reads."""
    with frozen(world):
        norms = reward_gradients(lambda action: read(dreamt(world, dream, action)), dream.action)
    return norms[:, :, 0]


def reward_gradients(rewards: Callable[[Tensor], Tensor], action: Tensor) -> Tensor:
    """Norms of the gradient of every reward to every action.

    Args:
        rewards: (N, H) that arrive after the actions (N, H, A); of each row by itself.
        action: (N, H, A).

    Returns:
        (N, H, H) with |d reward[:, k] / d action[:, t]| at ``[:, k, t]``.
    """
    action = action.detach().clone().requires_grad_()
    reward = rewards(action)
    norms = []
    for k in range(reward.shape[1]):
        (gradient,) = torch.autograd.grad(
            reward[:, k].sum(), action, retain_graph=True, materialize_grads=True
        )
        norms.append(gradient.norm(dim=-1))
    return torch.stack(norms, 1)


def random_reading(world: WorldModel, generator: torch.Generator) -> Read:
    """A reward for a network that has not learnt one: a direction of what its heads read."""
    reads = world.config.heads.reads
    direction = torch.randn(world.config.sizes.of(reads), generator=generator)
    direction /= direction.norm()
    return lambda latent: latent.read(reads) @ direction

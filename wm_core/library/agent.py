"""An agent in a few lines: create, update, act, look at what it imagines, save, export."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import write_durably
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Obs, Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.library.changes import with_changes
from wm_core.library.export import write_policy
from wm_core.training import checkpoint
from wm_core.training.agent_actor import AgentActor
from wm_core.training.seeding import Streams
from wm_core.world.latent import Latent, to_device


class Agent:
    """A world model and a policy that learn together, with every generator that they draw from.

    Args:
        core: the networks and their optimisers, on their device.
        streams: the generators.
    """

    def __init__(self, core: AgentCore, streams: Streams) -> None:
        self.core, self._streams = core, streams
        self.spec, self.config, self.world = core.spec, core.config, core.world
        self._actor = AgentActor(core, streams.actor)
        self._prev_action = np.zeros(self.spec.action.size, np.float32)

    @classmethod
    def create(
        cls,
        preset: str,
        spec: Spec,
        *,
        size: str = "micro",
        seed: int = 0,
        device: str = "cpu",
        **settings: Any,
    ) -> Agent:
        """Make an agent whose weights are drawn from ``seed``.

        Args:
            preset: name of the system, such as ``dreamer_v3``; ``presets.PRESETS`` has all.
            spec: what the agent observes and does.
            size: of the networks; ``presets.sizes_of(preset)`` has all.
            seed: of the weights and of every later draw; the same seed gives the same numbers.
            device: as torch names it.
            settings: changes of the preset, nested or by dotted name:
                ``world={"units": 64}`` or ``**{"world.units": 64}``.

        Raises:
            SettingsError: for a preset, size or setting that does not exist or does not fit.
        """
        config = with_changes(presets.make(preset, size), settings | {"seed": seed})
        streams = Streams(seed, torch.device(device))
        return cls(AgentCore(spec, config, generator=streams.init).to(device), streams)

    @property
    def updates(self) -> int:
        """Gradient updates since the weights were drawn."""
        return self.core.updates

    def update(self, batch: Batch[np.ndarray] | Batch[Tensor]) -> dict[str, float]:
        """Take one gradient step on world model and policy; returns the metrics by name.

        Every window starts from an empty memory: latents are not remembered between updates, as
        ``train`` does.

        Args:
            batch: (B, T) windows, as ``Episodes.windows`` yields them.
        """
        metrics, _ = self.core.update(self.to_device(batch), None, self._streams.learner)
        return {name: float(value) for name, value in metrics.items()}

    @torch.no_grad()
    def observe(self, batch: Batch[Any], *, seed: int = 0) -> Latent:
        """Give the posterior latents (B, T) of ``batch`` (B, T), whose memory begins empty."""
        generator = torch.Generator(self.core.device).manual_seed(seed)
        size = (*batch.reward.shape, *self.world.dynamics.latent_dist.shape)
        uniform = torch.rand(size, generator=generator, device=self.core.device)
        start = self.core.initial(len(batch.reward))
        return self.world.observe(self.to_device(batch), start, uniform)[0]

    def act(
        self,
        obs: Obs,
        prev_action: np.ndarray | None = None,
        *,
        is_first: bool = False,
        mean: bool = False,
    ) -> np.ndarray:
        """Choose the next action (A,) in [-1, 1] in one environment, whose history is remembered.

        Args:
            obs: images (H, W, C) uint8 and vectors (n,) float32, as ``spec`` says.
            prev_action: (A,) that was really sent; None: the one that was returned last.
            is_first: an episode begins, the history is forgotten.
            mean: take the mean action instead of drawing one.

        Raises:
            SpecMismatch: for an observation that does not fit ``spec``.
        """
        self.spec.check_obs(obs)
        before = self._prev_action if prev_action is None else np.asarray(prev_action, np.float32)
        self._actor.mean = mean
        (self._prev_action,) = self._actor.act(
            {name: value[None] for name, value in obs.items()},
            before[None] * (not is_first),
            np.array([is_first]),
        )
        return self._prev_action.copy()

    def save(self, path: str | Path) -> None:
        """Write weights, optimisers, generators and settings to one file, durably."""
        state = {
            "format": checkpoint.FORMAT,
            "config": self.config.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "task": "",
            "agent_steps": 0,
            "learner": {"agent": self.core.state_dict(), "updates": self.updates},
            "streams": self._streams.state(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_durably(Path(path), buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path, *, device: str = "cpu") -> Agent:
        """Read an agent from a file of ``save``, a checkpoint of ``train``, or its run folder.

        Raises:
            StoreError: for a file that is none of these, or is damaged.
        """
        where, path = torch.device(device), Path(path)
        path, state = checkpoint.newest(path) if path.is_dir() else (path, checkpoint.load(path))
        core = checkpoint.agent_in(state, path, where).agent
        streams = Streams(core.config.seed, where)
        streams.load_state(state["streams"])
        return cls(core, streams)

    def export(self, to: str | Path, *, task: str = "", golden_steps: int = 64) -> PolicyRunner:
        """Write the policy as ONNX with its card and golden rollout into the folder ``to``.

        Args:
            to: receives policy.onnx, policy.golden.npz and policy.manifest.json.
            task: name of the task, for the card.
            golden_steps: length of the rollout that proves the file.

        Returns:
            The policy, loaded from ``to`` and proved as a robot would.
        """
        exporter, version = PolicyExporter(self.core, self.spec, self.config, task=task), 1
        made = exporter.export(version, self.updates, 0, golden_steps)
        return write_policy(Path(to), made, version=version, learner_updates=self.updates)

    def to_device(self, batch: Batch[Any]) -> Batch[Tensor]:
        """Move a batch (B, T, ...) of NumPy arrays or of tensors to the agent's device."""
        if isinstance(batch.reward, np.ndarray):
            return to_device(batch, self.core.device)
        return batch.map(lambda array: array.to(self.core.device))


def open_loop(
    agent: Agent, batch: Batch[Any], *, observed: int = 5, seed: int = 0
) -> dict[str, np.ndarray]:
    """Let the world model observe a few steps and imagine the rest from the recorded actions.

    Args:
        agent: whose world model has a decoder.
        batch: (B, T) windows of more than ``observed`` steps.
        observed: steps before the model imagines, from 1 to T - 1.
        seed: of the draws.

    Returns:
        By input: images (B, T, H, W, C) uint8 and vectors (B, T, n); the first ``observed`` are
        reconstructions, the others are imagined.

    Raises:
        SettingsError: for a number of ``observed`` steps that leaves none to observe or imagine.
    """
    steps = batch.reward.shape[1]
    if not 0 < observed < steps:
        raise SettingsError(
            f"expected observed from 1 to {steps - 1} in windows of {steps} steps, got {observed}"
        )
    generator = torch.Generator(agent.core.device).manual_seed(seed)
    start = agent.core.initial(len(batch.reward))
    frames = agent.world.open_loop(agent.to_device(batch), start, observed, generator)
    return {name: array.cpu().numpy() for name, array in frames.items()}

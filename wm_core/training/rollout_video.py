"""Renders what the world model imagines beside what the camera recorded.

After a few real frames the model gets the recorded actions only, and its decoder draws what it
predicts that the camera saw (an open-loop rollout).
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter

import numpy as np
import torch

from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch, stacked
from wm_core.contract.errors import SettingsError
from wm_core.replay.sampler import Sampler
from wm_core.world.latent import to_device

OBSERVED = 5  #: real frames that the model sees first
#: colours of the bar above the model's frames
_OBSERVED_RGB, _IMAGINED_RGB = (60, 170, 80), (225, 120, 20)
_BAR_PX = 2
_GAP_PX = 2


@dataclass(frozen=True)
class RolloutVideo:
    """N windows of T frames, real and imagined."""

    real: np.ndarray  #: (N, T, H, W, 3) uint8
    model: np.ndarray  #: (N, T, H, W, 3) uint8: reconstructed, from ``observed`` on imagined
    observed: int

    @property
    def error(self) -> float:
        """Mean absolute difference of the imagined frames, in levels of 255."""
        real, model = self.real[:, self.observed :], self.model[:, self.observed :]
        return float(np.abs(real.astype(np.int16) - model).mean())

    def frames(self) -> np.ndarray:
        """Put windows side by side, with real, model and difference below each other.

        Returns:
            (T, H', W', 3) uint8.
        """
        count, times = self.real.shape[:2]
        columns = ([self._column(n, t) for n in range(count)] for t in range(times))
        return np.stack([np.hstack(of_time) for of_time in columns])

    def strip(self, columns: int = 16) -> np.ndarray:
        """Put ``columns`` times of the first window side by side: (H', W', 3) uint8."""
        last = self.real.shape[1] - 1
        times = np.unique(np.linspace(0, last, columns).round().astype(int))
        return np.hstack([self._column(0, t) for t in times])

    def _column(self, n: int, t: int) -> np.ndarray:
        real, model = self.real[n, t], self.model[n, t]
        width = real.shape[1]
        bar = np.empty((_BAR_PX, width, 3), np.uint8)
        bar[:] = _OBSERVED_RGB if t < self.observed else _IMAGINED_RGB
        difference = np.abs(real.astype(np.int16) - model).astype(np.uint8)
        column = np.concatenate([real, bar, model, bar, difference])
        return np.pad(column, ((0, 0), (0, _GAP_PX), (0, 0)), constant_values=255)


def sample_windows(sampler: Sampler, count: int, *, tries: int = 40) -> Batch[np.ndarray]:
    """Draw ``count`` windows (N, T, ...), each within one episode where ``tries`` batches allow.

    In a window across the border of two episodes the model would have to imagine a reset.
    """
    whole, across = list[Batch[np.ndarray]](), list[Batch[np.ndarray]]()
    for _ in range(tries):
        batch = sampler.sample()
        for i in range(len(batch.reward)):
            crosses = batch.is_first[i, 1:].any()
            (across if crosses else whole).append(batch.map(itemgetter(i)))
        if len(whole) >= count:
            break
    return stacked([*whole, *across][:count])


def render(
    agent: AgentCore, batch: Batch[np.ndarray], *, seed: int, observed: int = OBSERVED
) -> RolloutVideo:
    """Render what ``agent`` imagines for the first camera of ``batch``.

    Args:
        agent: on any device.
        batch: windows (N, T, ...), more than ``observed`` steps long.
        seed: of the latents' noise.
        observed: real frames that the model sees first.

    Raises:
        SettingsError: for an agent without a camera, or windows that are too short.
    """
    if not agent.spec.images:
        raise SettingsError("nothing to show: this agent has no camera")
    if batch.reward.shape[1] <= observed:
        raise SettingsError(
            f"expected windows of more than {observed} steps, got {batch.reward.shape[1]}"
        )
    key = next(iter(agent.spec.images))
    device = agent.device
    generator = torch.Generator(device).manual_seed(seed)
    start = agent.initial(len(batch.reward))
    imagined = agent.world.open_loop(to_device(batch, device), start, observed, generator)
    picture = agent.spec.images[key].picture
    return RolloutVideo(picture(batch.obs[key]), picture(imagined[key].cpu().numpy()), observed)

"""What the world model imagines beside what really happened.

After a few real frames the model's eyes are closed: from there on it is given the recorded actions
only, and its decoder draws what it believes the camera saw.
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

OBSERVED = 5  #: real frames before the eyes close
_SEEING, _BLIND = (60, 170, 80), (225, 120, 20)  #: colours of the bar above the model's frames
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
        """(T, H', W', 3) uint8: windows side by side; real, model and difference from the top."""
        frames = [
            np.concatenate([self._column(n, t) for n in range(len(self.real))], axis=1)
            for t in range(self.real.shape[1])
        ]
        return np.stack(frames)

    def strip(self, window: int = 0, columns: int = 16) -> np.ndarray:
        """(H', W', 3) uint8: moments of one window from left to right.

        Args:
            window: which of the N.
            columns: how many moments, evenly spaced.
        """
        last = self.real.shape[1] - 1
        moments = np.unique(np.linspace(0, last, columns).round().astype(int))
        return np.concatenate([self._column(window, t) for t in moments], axis=1)

    def _column(self, n: int, t: int) -> np.ndarray:
        real, model = self.real[n, t], self.model[n, t]
        width = real.shape[1]
        bar = np.empty((_BAR_PX, width, 3), np.uint8)
        bar[:] = _SEEING if t < self.observed else _BLIND
        away = np.abs(real.astype(np.int16) - model).astype(np.uint8)
        column = np.concatenate([real, bar, model, bar, away])
        gap = np.full((column.shape[0], _GAP_PX, 3), 255, np.uint8)
        return np.concatenate([column, gap], axis=1)


def sample_windows(sampler: Sampler, count: int, *, tries: int = 40) -> Batch[np.ndarray]:
    """Draw ``count`` windows (N, T, ...), within one episode as far as ``tries`` batches hold any.

    A window across the border of two episodes would ask the model to imagine a reset.
    """
    whole: list[Batch[np.ndarray]] = []
    across: list[Batch[np.ndarray]] = []
    for _ in range(tries):
        batch = sampler.sample()
        for i in range(len(batch.reward)):
            crosses = batch.is_first[i, 1:].any()
            (across if crosses else whole).append(batch.map(itemgetter(i)))
        if len(whole) >= count:
            break
    rows = [*whole, *across][:count]
    return stacked(rows)


def render(
    agent: AgentCore, batch: Batch[np.ndarray], *, seed: int, observed: int = OBSERVED
) -> RolloutVideo:
    """Render what ``agent`` makes of ``batch``, of its first camera.

    Args:
        agent: on any device.
        batch: windows (N, T, ...), more than ``observed`` steps long.
        seed: of the model's draws.
        observed: real frames before the eyes close.

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
    made = agent.world.open_loop(to_device(batch, device), start, observed, generator)
    picture = agent.spec.images[key].picture
    return RolloutVideo(picture(batch.obs[key]), picture(made[key].cpu().numpy()), observed)

"""Gives collected actions a memory: random ones that are held, and noise that is pink.

Actions that are drawn anew at every step hardly move a body with mass; the same draws, each held
for some steps or correlated over all time scales, carry it through more of its states.
"""

from __future__ import annotations

import math

import numpy as np

from wm_core.contract.spec import ActionSpec, Obs
from wm_core.training.settings import ExploreConfig, NoiseKind

OCTAVES = 10  #: processes that pink noise is the sum of; their memories are 1, 2, 4 .. 512 steps
_BELOW_ONE = 1.0 - 2.0**-24  #: the largest float32 below 1


class PinkNoise:
    """Draws uniforms whose spectrum falls as 1 / frequency, for N environments at once.

    Each number is uniform in [0, 1) by itself.  It is the rank of a sum of first-order processes
    of equal variance, the memory of each twice that of the one before.  Every episode begins with
    a draw of its own from the same distribution.

    Args:
        shape: of the uniforms of one environment.
        rng: of the draws.

    Source: pink noise for the actions of continuous control: Eberhard et al. 2023, "Pink Noise Is
    All You Need", ICLR.  Deviates: a sum of processes step by step in place of an inverse Fourier
    transform over an episode, whose length need not be known so.
    """

    def __init__(self, shape: tuple[int, ...], rng: np.random.Generator) -> None:
        self._shape, self._rng = shape, rng
        keep = np.exp(-(0.5 ** np.arange(OCTAVES))).reshape(OCTAVES, *(1 for _ in shape))
        self._keep, self._fresh = keep, np.sqrt(1.0 - keep**2)
        self._state = np.zeros((0, OCTAVES, *shape))

    def uniforms(self, is_first: np.ndarray) -> np.ndarray:
        """Draw (N, *shape) float32 in [0, 1), the same N at every call.

        Args:
            is_first: (N,) bool, True where an episode begins: the past is forgotten there.
        """
        import torch  # here, since actors in simulation do without it

        fresh = self._rng.standard_normal((len(is_first), OCTAVES, *self._shape))
        begins = np.asarray(is_first) | (len(self._state) != len(is_first))
        if begins.all():
            self._state = fresh
        else:
            begins = begins.reshape(-1, *(1 for _ in fresh.shape[1:]))
            self._state = np.where(begins, fresh, self._keep * self._state + self._fresh * fresh)
        normal = torch.from_numpy(self._state.sum(1) / math.sqrt(OCTAVES))
        rank = torch.special.ndtr(normal).numpy()
        return np.minimum(rank, _BELOW_ONE).astype(np.float32)


class RandomActor:
    """Acts at random: for the prefill, and as the baseline of every evaluation.

    Every action by itself is uniform over all actions.

    Args:
        action: how many actions there are, and whether they are choices.
        rng: of the draws.
        explore: for how many steps each is held, and whether they are pink; None: every step has
            a draw of its own.
    """

    version = -1

    def __init__(
        self, action: ActionSpec, rng: np.random.Generator, explore: ExploreConfig | None = None
    ) -> None:
        explore = explore or ExploreConfig()
        self._action, self._rng, self._hold = action, rng, explore.hold
        self._pink = PinkNoise((action.size,), rng) if explore.prefill_noise == "pink" else None
        self._held: list[np.ndarray] = []  # the action of each environment
        self._left: list[int] = []  # steps that it is still held for

    def act(self, obs: Obs, prev_action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
        if len(self._held) != len(is_first):
            self._left = [0] * len(is_first)
            self._held = [np.zeros(self._action.size, np.float32)] * len(is_first)
        drawn = None if self._pink is None else self._pink.uniforms(is_first)
        for row, first in enumerate(is_first):
            if first or not self._left[row]:
                self._held[row] = self._draw(None if drawn is None else drawn[row])
                self._left[row] = self._hold
            self._left[row] -= 1
        return np.stack(self._held)

    def _draw(self, uniform: np.ndarray | None) -> np.ndarray:
        """(A,) action: a new one, or that of ``uniform`` (A,) in [0, 1)."""
        if uniform is None:
            return self._action.random(self._rng)
        action = 2.0 * uniform - 1.0
        # of each choice the largest of its uniforms, so that none is nearer to one than to another
        return self._action.limit(action, action) if self._action.discrete else action


def noise_of(
    kind: NoiseKind, shape: tuple[int, ...], rng: np.random.Generator
) -> PinkNoise | None:
    """Make what a policy's collected actions draw from; None for a draw at every step."""
    return PinkNoise(shape, rng) if kind == "pink" else None

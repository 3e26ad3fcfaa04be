"""One moment of a robot's life, with every field timed the same way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from wm_core.contract.spec import Obs


@dataclass(frozen=True, slots=True)
class Step:
    """What the robot knew and did at one agent step.

    ``reward`` and the flags arrived together with ``obs``; ``action`` was chosen after seeing it.
    """

    obs: Obs  #: "image": (H, W, C) uint8; vectors: (n,) float32, SI units
    action: np.ndarray  #: (A,) float32 in [-1, 1] or one-hot, what was sent after every limit
    reward: float  #: 0.0 on the first step of an episode
    is_first: bool  #: no action led here
    is_last: bool  #: terminated or truncated, or the record breaks off here
    is_terminal: bool  #: terminated: nothing can follow, so bootstrap with 0
    is_intervention: bool = False  #: a person or a safety rule chose the action
    is_valid: bool = True  #: False where a NaN was found: kept on disk, kept out of training
    wish: np.ndarray | None = None  #: (A,) float32, what the policy asked for before limits
    policy_version: int = -1  #: of the policy that acted; -1 for none (random, safe, expert)
    stamp_ns: int = 0  #: capture time of the image, nanoseconds


def is_finite(step: Step) -> bool:
    """Whether reward, action and every vector of ``step`` are free of NaN and infinity."""
    vectors = [v for v in step.obs.values() if v.dtype != np.uint8]
    return bool(np.isfinite(step.reward)) and all(
        bool(np.isfinite(a).all()) for a in (step.action, *vectors)
    )

"""Makes batches of windows; the one place that shifts actions.

A window is T + 1 steps.  The first is only context: it lends its action, which led to the next
step, and its key, under which the learner may remember a latent.
"""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from wm_core.contract.batch import Batch
from wm_core.contract.spec import Obs
from wm_core.contract.step import NUMBERS
from wm_core.store.index import step_number

NO_CONTEXT = -1


def prev_action(action: np.ndarray, is_first: np.ndarray) -> np.ndarray:
    """Shift to the action that led to each of the steps 1 .. T of a window of T + 1.

    Args:
        action: (B, T + 1, A) chosen after seeing each step.
        is_first: (B, T + 1) bool, no action led to the step.

    Returns:
        (B, T, A), zeros where ``is_first``.
    """
    return np.where(is_first[:, 1:, None], np.float32(0.0), action[:, :-1])


def make_batch(steps: np.ndarray, obs: Obs, has_context: np.ndarray) -> Batch[np.ndarray]:
    """Make a batch of windows.

    Args:
        steps: (B, T + 1) as ``Store.read`` gives them.
        obs: of the steps 1 .. T: images (B, T, H, W, C) uint8, vectors (B, T, n) float32.
        has_context: (B,) bool; without one, step 0 is a stand-in whose content does not matter
            and step 1 counts as the first of an episode, but keeps its reward: a label, and no
            input (``Dynamics`` forgets the reward of the step before where an episode begins).
    """
    numbers = {f.name: step_number(steps, f.name) for f in fields(Batch) if f.name in NUMBERS}
    is_first = numbers["is_first"]
    # before the next line: where a window begins at a gap, the reward of its first step is true
    numbers["reward"] = np.where(is_first, np.float32(0.0), numbers["reward"])
    is_first[:, 1] |= ~has_context
    return Batch(
        obs=obs,
        prev_action=prev_action(steps["action"], is_first),
        key=np.ascontiguousarray(steps["key"][:, 1:]),
        context_key=np.where(has_context, steps["key"][:, 0], NO_CONTEXT),
        **{name: np.ascontiguousarray(values[:, 1:]) for name, values in numbers.items()},
    )

"""Replays stored experience through a policy, with the carry that it really has there.

What a policy meets in use is what its calibration must see: the ranges of an 8-bit graph and the
limit of its surprise both come from the steps that it was trained on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import SettingsError
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Obs
from wm_core.store.index import step_number
from wm_core.store.reader import Store
from wm_core.store.segments import Segment

RUN = 256  #: consecutive steps that are read at once; the policy's memory begins empty there
QUANTILE = 0.99  #: of the surprise over stored steps ...
MARGIN = 3.0  #: ... times this is the limit
LEAST_NATS = 1.0  #: a limit below this would call the noise of a good model a surprise
FEWEST = 50  #: steps from which a quantile is taken

_Arrays = dict[str, np.ndarray]


class StoredStep(NamedTuple):
    """What a policy is given at one stored step."""

    obs: Obs
    prev_action: np.ndarray  #: (A,) in [-1, 1] that was sent before; zeros at ``is_first``
    is_first: bool


def stored_steps(store: Store, count: int) -> Iterator[StoredStep]:
    """Yield up to ``count`` steps, in runs of consecutive ones spread evenly over the store.

    Raises:
        SettingsError: where the store holds none.
    """
    with store.lock:
        segments = list(store.segments)
    total = sum(segment.length for segment in segments)
    if not total:
        raise SettingsError(f"{store.root}: expected stored steps to replay, it holds none")
    runs = math.ceil(min(count, total) / RUN)
    for number in range(runs):
        place, until = number * total // runs, (number + 1) * total // runs
        segment, start = _at(segments, place)
        length = min(RUN, until - place, segment.length - start, count - number * RUN)
        steps = store.read(segment.rows(start, length))
        obs, first = store.observe(steps), step_number(steps, "is_first").copy()
        first[0] = True  # what came before is not replayed
        for t in range(length):
            sent = np.zeros_like(steps["action"][t]) if first[t] else steps["action"][t - 1]
            yield StoredStep({key: value[t] for key, value in obs.items()}, sent, bool(first[t]))


def _at(segments: Iterable[Segment], position: int) -> tuple[Segment, int]:
    """Find the segment that holds the step at ``position`` of all, and its place there."""
    for segment in segments:
        if position < segment.length:
            return segment, position
        position -= segment.length
    raise IndexError("position lies behind the last segment")


def replay(
    runner: PolicyRunner, steps: Iterable[StoredStep], *, seed: int = 0
) -> Iterator[tuple[_Arrays, _Arrays]]:
    """Yield every input and every output (1, ...) of ``runner`` by name, step by step.

    Args:
        runner: the policy; each step is given the carry that it answered before.
        steps: of its spec.
        seed: of the draws.
    """
    rng, carry = np.random.default_rng(seed), runner.initial_carry()
    shapes = {info.name: info.shape for info in runner.card.inputs}
    for step in steps:
        runner.spec.check_obs(step.obs)
        feed = {key: step.obs[key][None] for key in runner.spec.inputs} | carry
        feed["prev_action"] = np.asarray(step.prev_action, np.float32)[None]
        feed["is_first"] = np.array([step.is_first])
        feed |= {name: rng.random(shapes[name], np.float32) for name in runner.card.noise}
        out = runner.call(feed)
        yield feed, out
        carry = {pair.input: out[pair.output] for pair in runner.card.carry}


def surprise_limit(runner: PolicyRunner, steps: Iterable[StoredStep]) -> float | None:
    """Choose the surprise, in nats, that experience like ``steps`` does not reach.

    It is ``MARGIN`` times the ``QUANTILE`` of the surprise over the steps that do not begin an
    episode, whose prior knows nothing yet; at least ``LEAST_NATS``.

    Returns:
        The limit; None for a policy that tells no surprise, or for fewer than ``FEWEST`` steps.
    """
    if "surprise" not in {info.name for info in runner.card.outputs}:
        return None
    told = [
        float(out["surprise"].reshape(()))
        for feed, out in replay(runner, steps)
        if not feed["is_first"][0]
    ]
    if len(told) < FEWEST or not np.isfinite(told).all():
        return None
    return max(LEAST_NATS, MARGIN * float(np.quantile(told, QUANTILE)))

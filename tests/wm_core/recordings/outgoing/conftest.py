"""A store of two robots: colour, grey and depth cameras, vectors, every flag, and a gap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_core.stored import store_chunk
from wm_core.contract.inputs import Depth, ImageSpec, VectorSpec
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey
from wm_core.store.ledger import LEDGER_NAME, Ledger

SPEC = Spec(
    images={
        "image": ImageSpec(height=8, width=10),
        "grey": ImageSpec(height=6, width=6, channels=1),
        "depth": Depth(height=4, width=5),
    },
    vectors={"joints": VectorSpec(size=3, names=("a", "b", "c")), "force": VectorSpec(size=1)},
    action=ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0), names=("forward", "turn")),
    period_s=0.1,
)
ONE_VECTOR = Spec(
    images={"image": ImageSpec(height=8, width=8)},
    vectors={"pose": VectorSpec(size=2)},
    action=ActionSpec.choices(3),
    period_s=0.05,
)


def episode(spec, count, *, seed, begin_ns=10**18, terminal=True):
    """``count`` steps with something of everything, whose stamps jitter."""
    rng = np.random.default_rng(seed)
    steps = []
    for t in range(count):
        if spec.action.discrete:
            action = np.eye(spec.action.size, dtype=np.float32)[rng.integers(spec.action.size)]
        else:
            action = rng.uniform(-1, 1, spec.action.size).astype(np.float32)
        requested = rng.normal(size=spec.action.size).astype(np.float32) if t % 3 else None
        stamp_ns = begin_ns + int(t * spec.period_s * 1e9) + int(rng.integers(10**6))
        steps.append(
            Step(
                obs={k: s.random(rng) for k, s in spec.inputs.items()},
                action=action,
                reward=float(rng.normal()) if t else 0.0,
                is_first=t == 0,
                is_last=t == count - 1,
                is_terminal=terminal and t == count - 1,
                is_intervention=bool(t % 4 == 1),
                is_valid=bool(t % 5 != 2),
                requested_action=requested,
                policy_version=int(t // 2) - 1,
                stamp_ns=stamp_ns,
                period_s=0.0 if t % 2 else 0.11,
            )
        )
    return steps


class StoreMaker:
    """Fills a store; ``stored`` has the steps of each (robot, session), in order."""

    def __init__(self, root):
        self.root = root
        self.stored = {}
        self._seq, self._step = {}, {}

    def add(self, steps, spec, *, robot="robot1", session="a" * 32, task="seek", chunk=7, skip=0):
        """Store steps in chunks, behind ``skip`` steps that never came."""
        key = (robot, session)
        self._step[key] = self._step.get(key, 0) + skip
        ledger = Ledger(self.root / LEDGER_NAME)
        for begin in range(0, len(steps), chunk):
            part = steps[begin : begin + chunk]
            seq = self._seq.get(key, -1) + 1 + bool(skip and not begin)
            at = self._step[key]
            store_chunk(
                self.root, ledger, ChunkKey(*key, seq), part, spec, first_step=at, task=task
            )
            self._seq[key], self._step[key] = seq, self._step[key] + len(part)
        ledger.close()
        self.stored.setdefault(key, []).append(steps)


@pytest.fixture
def maker(tmp_path):
    return StoreMaker(tmp_path / "run" / "store")


@pytest.fixture
def store(maker):
    """Two sessions of one spec, of two robots: episodes of 20, 9 and 5 steps."""
    maker.add(episode(SPEC, 20, seed=0), SPEC)
    maker.add(episode(SPEC, 9, seed=1, begin_ns=2 * 10**18, terminal=False), SPEC)
    maker.add(
        episode(SPEC, 5, seed=2, begin_ns=5 * 10**17), SPEC, robot="robot2", session="b" * 32
    )
    return maker.root


def same(step, other):
    """Whether two steps are equal, bit for bit."""
    for key, value in step.obs.items():
        got = other.obs[key]
        assert got.dtype == value.dtype, key
        np.testing.assert_array_equal(got, value, err_msg=key)
    np.testing.assert_array_equal(step.action, other.action)
    assert (step.requested_action is None) == (other.requested_action is None)
    if step.requested_action is not None:
        np.testing.assert_array_equal(step.requested_action, other.requested_action)
    plain = {"obs": {}, "action": np.zeros(0), "requested_action": None}
    left, right = replace(step, **plain), replace(other, **plain)
    assert str(left) == str(right)
    return True


@pytest.fixture
def all_steps(maker, store):
    """The episodes of ``store`` in the order of their arrival."""
    return [steps for episodes in maker.stored.values() for steps in episodes]

"""Environments in processes of their own give the same bits, and may be killed or hang."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from wm_core.contract.errors import EnvRaised
from wm_core.training.evaluate import open_env
from wm_core.training.settings import EnvConfig

TASK = "CartPole-v1"


def steps(adapter, spec, count):
    """The observations, rewards and ends of ``count`` steps under drawn actions."""
    rng, seen = np.random.default_rng(1), []
    for _ in range(count):
        state = adapter.reset() if adapter.state.is_last else adapter.state
        state = adapter.step(spec.action.random(rng))
        seen.append((state.obs["vector"].tobytes(), state.reward, state.is_last))
    return seen


@pytest.fixture
def opened():
    made = []

    def open_one(**more):
        made.append(open_env(TASK, seed=3, wait=lambda _: None, **more))
        return made[-1]

    yield open_one
    for adapter, _ in made:
        adapter.env.close()


def test_same_seeds_give_the_same_bits_in_a_process_and_here(opened):
    here = steps(*opened(), 300)
    assert steps(*opened(process=True), 300) == here
    assert any(is_last for *_, is_last in here)


def test_a_process_that_is_killed_counts_as_a_raise(opened):
    adapter, spec = opened(process=True)
    adapter.step(spec.action.random(np.random.default_rng(0)))
    os.kill(adapter.env.pid, signal.SIGKILL)
    adapter.send(spec.action.random(np.random.default_rng(0)))
    fault = adapter.receive_or_restart()
    assert isinstance(fault, EnvRaised)
    assert "its process ended" in str(fault)
    assert adapter.restarts == 1
    assert adapter.state.is_first
    adapter.step(spec.action.random(np.random.default_rng(0)))


def test_a_step_that_takes_too_long_is_cut_off(opened):
    adapter, spec = opened(process=True, env=EnvConfig(step_timeout_s=60.0))
    adapter.reset()
    os.kill(adapter.env.pid, signal.SIGSTOP)  # hangs
    adapter.env._timeout_s = 0.2
    adapter.send(spec.action.random(np.random.default_rng(0)))
    fault = adapter.receive_or_restart()
    assert "took more than 0.2 s" in str(fault)
    assert adapter.state.is_first

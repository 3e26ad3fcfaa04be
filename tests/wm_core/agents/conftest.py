"""DreamerV3, small, of whose parts most tests here are."""

from __future__ import annotations

import pytest

from wm_core.agents.agent import AgentCore

B = 4


@pytest.fixture
def v3(small):
    return small("dreamer_v3")


@pytest.fixture
def spec(v3):
    return v3.spec


@pytest.fixture
def config(v3):
    return v3.config


@pytest.fixture
def make(v3) -> AgentCore:
    """A function that makes the same agent each time."""
    return v3.agent


@pytest.fixture
def agent(make):
    return make()


@pytest.fixture
def batch(v3):
    return v3.batch()


@pytest.fixture
def context(agent):
    """(B, D) and (B, S, K) of an agent that has seen nothing."""
    return agent.world.dynamics.carry_of(agent.initial(B))

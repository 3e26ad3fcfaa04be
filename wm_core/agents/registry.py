"""Which agent a preset names: an explicit table."""

from __future__ import annotations

import torch

from wm_core.agents.dreamer import Dreamer
from wm_core.config import Config
from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.spec import Spec

AGENTS = {"dreamer_v3": Dreamer}


def make_agent(spec: Spec, config: Config, *, generator: torch.Generator) -> Dreamer:
    """The agent that ``config.preset`` names; raises ``SettingsError`` naming the nearest."""
    if config.preset not in AGENTS:
        raise SettingsError(nearest(config.preset, AGENTS, what="preset"))
    return AGENTS[config.preset](spec, config, generator=generator)

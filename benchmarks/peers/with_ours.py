"""An update of this project's DreamerV3, as ``wm bench learner`` measures it."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.peers.sizes import ACTION_SIZE, Size
from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import DEFAULT, Contestant
from wm_core.bench.learner import random_batch
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.presets.micro import changed
from wm_core.training.allocator import keep_freed_memory


def make(size: Size, precision: str) -> tuple[Callable[[], None], int]:
    """A function that takes one gradient step, and the number of parameters.

    Its convolutions are those that the peers have: kernel 4, stride 2.

    Args:
        size: of network and batch.
        precision: ``32-true`` or ``bf16-mixed``.
    """
    keep_freed_memory()
    form = "float32" if precision == "32-true" else "auto"
    config = changed(
        Contestant(DEFAULT, size.ours).config(),
        world={"encoder": {"kind": "k4s2"}, "recon": {"rows_at_once": 128}},
        behavior={"actor": {"rows_at_once": 128}, "critic": {"rows_at_once": 128}},
        optim={"precision": form},
    )  # fmt: skip
    spec = Spec(action=ActionSpec(low=(-1.0,) * ACTION_SIZE, high=(1.0,) * ACTION_SIZE))
    generator = torch.Generator().manual_seed(0)
    agent = AgentCore(spec, config, generator=generator)
    batch = random_batch(config, generator)

    def update() -> None:
        agent.update(batch, None, generator)

    return update, sum(p.numel() for p in agent.parameters())

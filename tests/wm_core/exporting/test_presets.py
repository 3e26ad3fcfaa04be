"""The exported file of every system against torch, with continuous actions and with choices."""

from __future__ import annotations

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.golden import PARITY, check_golden, read_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.exporting.exporter import PolicyExporter

pytestmark = pytest.mark.long

STATELESS = {"twm", "awm"}
CARRIES = {
    "world_models": ("output", "cell", "stoch"),
    "transdreamer": ("keys", "values", "valid", "tokens", "stoch"),
    "s4wm": ("states", "stoch"),
}


@pytest.fixture(scope="module")
def exported(small, shaken):
    """A function that exports a small agent, none of whose weights is zero."""

    def make(preset, *, discrete, steps=200, **changes):
        parts = small(preset, discrete=discrete, vectors=True, **changes)
        agent = parts.agent()
        shaken(agent, 2)
        export = PolicyExporter(agent, parts.spec, parts.config).export(1, 0, 0, steps)
        return export, PolicyRunner.from_bytes(export.onnx)

    return make


@pytest.mark.parametrize("preset", presets.PRESETS)
@pytest.mark.parametrize("discrete", [False, True], ids=["continuous", "choices"])
def test_two_hundred_steps_with_resets_agree_with_torch(preset, discrete, exported):
    export, runner = exported(preset, discrete=discrete)
    golden, card = read_golden(export.golden), runner.card
    assert golden["in/is_first"].sum() > 10
    assert check_golden(export.golden, card, runner.call) <= PARITY
    carry = () if preset in STATELESS else CARRIES.get(preset, ("deter", "stoch"))
    assert tuple(pair.input for pair in card.carry) == carry
    told = {info.name for info in card.outputs}
    assert ("value" in told) == (preset != "world_models")
    assert ("surprise" in told) == (preset not in STATELESS)
    if discrete:
        assert set(golden["out/command"].flatten().tolist()) <= {0.0, 1.0, 2.0}
        assert len(set(golden["out/command"].flatten().tolist())) > 1


@pytest.mark.parametrize(
    ("dynamics", "latent"),
    [("dreamer_v1", "categorical"), ("transdreamer", "gaussian")],
    ids=["RSSM with dice", "TSSM with Gaussians"],
)
def test_both_dynamics_export_with_the_other_kind_of_latents_too(dynamics, latent, exported):
    export, runner = exported(dynamics, discrete=False, steps=60, world={"latent": latent})
    assert check_golden(export.golden, runner.card, runner.call) <= PARITY


@pytest.mark.slow
@pytest.mark.parametrize("preset", presets.PRESETS)
def test_the_small_size_of_every_system_agrees_with_torch_fresh_and_shaken(preset, shaken):
    """Fresh weights are the hardest: what begins an episode is nearly nothing."""
    spec = Spec(
        vectors={"joints": VectorSpec(size=3)}, action=ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)
    )
    config = presets.make(preset, "micro")
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0))
    exporter = PolicyExporter(agent, spec, config)
    for version in range(2):
        export = exporter.export(version, 0, 0, 200)
        runner = PolicyRunner.from_bytes(export.onnx)
        assert check_golden(export.golden, runner.card, runner.call) <= PARITY
        shaken(agent, 2)

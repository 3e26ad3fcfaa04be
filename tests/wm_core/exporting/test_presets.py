"""The exported file of every system against torch, with continuous actions and with choices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.conformance import check_policy
from wm_core.contract.golden import PARITY, check_golden, read_golden, rollout
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.quantize import quantize

pytestmark = pytest.mark.long

STATELESS = {"twm", "awm"}
CARRIES = {
    "world_models": ("output", "cell", "stoch"),
    "transdreamer": ("keys", "values", "valid", "tokens", "stoch"),
    "s4wm": ("states", "stoch"),
}


@pytest.fixture(scope="module")
def exported(small, shaken):
    """A function that exports a small agent, none of whose weights is zero, once each."""
    made = {}

    def make(preset, *, discrete, steps=200, **changes):
        key = preset, discrete, steps, str(changes)
        if key not in made:
            parts = small(preset, discrete=discrete, vectors=True, **changes)
            agent = parts.agent()
            shaken(agent, 2)
            made[key] = PolicyExporter(agent, parts.spec, parts.config).export(1, 0, 0, steps)
        return made[key], PolicyRunner.from_bytes(made[key].onnx)

    return make


#: one preset for each kind of memory; the other presets with choices are slow tests
CHOOSE = ("dreamer_v3", "transdreamer", "s4wm", "twm", "world_models")
CASES = [
    *((preset, False) for preset in presets.PRESETS),
    *(
        pytest.param(preset, True, marks=() if preset in CHOOSE else pytest.mark.slow)
        for preset in presets.PRESETS
    ),
]


@pytest.mark.parametrize(("preset", "discrete"), CASES)
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
    _check_halves(export, golden, has_memory=bool(carry))
    _check_forgets(runner, golden)
    if discrete:
        assert set(golden["out/command"].flatten().tolist()) <= {0.0, 1.0, 2.0}
        assert len(set(golden["out/command"].flatten().tolist())) > 1


def _check_forgets(runner, golden):
    """Where an episode begins, even NaN in the carry changes no answer."""
    feed = {name[3:]: v[:1] for name, v in golden.items() if name.startswith("in/")}
    feed |= runner.initial_carry() | {"is_first": np.array([True])}
    spoilt = {name: np.full_like(v, np.nan) for name, v in runner.initial_carry().items()}
    for name, want in runner.call(feed).items():
        np.testing.assert_array_equal(runner.call(feed | spoilt)[name], want)


def _check_halves(export, golden, *, has_memory):
    """Two halves are the whole bit for bit, whether one was prepared or not."""
    halves = PolicyRunner.from_bytes(export.onnx)
    whole = PolicyRunner.from_bytes(export.onnx, halves=False)
    assert check_golden(export.golden, whole.card, whole.call) <= PARITY
    assert halves._graph.splits
    assert not whole._graph.splits
    behind = {name for part in halves._graph._parts[1:] for name in part.inputs}
    assert behind.isdisjoint({*halves.initial_carry(), "noise_latent"})  # all read ahead
    assert behind >= {*halves.spec.inputs, *(info.name for info in halves.card.split)}
    memory = {"deter", "keys", "states", "cell"} & set(halves.initial_carry())
    assert bool(memory) == has_memory
    want = _rollout(PolicyEngine(whole, seed=5), golden, prepares=False)
    for prepares in (True, False):
        got = _rollout(PolicyEngine(halves, seed=5), golden, prepares=prepares)
        for mine, theirs in zip(got, want, strict=True):
            for a, b in zip(mine, theirs, strict=True):
                np.testing.assert_array_equal(a, b)


def _rollout(engine, golden, *, prepares):
    """Every answer of an engine that keeps its own carry, and the carry after each."""
    told, sent = [], golden["in/prev_action"][0]
    for t, first in enumerate(golden["in/is_first"]):
        obs = {key: golden[f"in/{key}"][t] for key in engine.runner.spec.inputs}
        out = engine.act(obs, sent, bool(first))
        told.append((out.action, out.command, out.value, out.surprise, *out.carry.values()))
        sent = golden["in/prev_action"][t]  # not always the action that was asked for
        if prepares:
            engine.prepare(sent)
    return told


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_the_public_kit_passes_every_system(preset, exported, tmp_path):
    """A memory longer than the kit's trials and a shorter one, whose slots all turn stale."""
    export, runner = exported(preset, discrete=False)
    PolicyFolder(tmp_path).write(*export, version=runner.card.version)
    for steps in (5, 40):
        check_policy(tmp_path, steps=steps)


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_every_system_runs_in_eight_bits(preset, exported):
    export, runner = exported(preset, discrete=False)
    steps = list(rollout(read_golden(export.golden), runner.card))[:20]
    quantized = PolicyRunner.from_bytes(quantize(export.onnx, [feed for feed, _ in steps]))
    for feed, want in steps:
        assert np.abs(quantized.call(feed)["action"] - want["action"]).max() < 0.3


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

"""The backbone that an example adds from outside is a full part: it learns, acts and exports."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.cli.settings import parse
from wm_core.config import Config
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.presets.micro import changed
from wm_core.world.settings import BACKBONES

PATH = Path(__file__).parents[2] / "examples" / "own_backbone.py"
SPEC = Spec(
    images={"image": ImageSpec(height=16, width=16)}, action=ActionSpec(low=(-1.0,), high=(1.0,))
)


@pytest.fixture(scope="module")
def example():
    found = importlib.util.spec_from_file_location("own_backbone", PATH)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    yield module
    BACKBONES._registered.pop("gated", None)


@pytest.fixture
def gated(example):
    """The settings of a small agent with that backbone."""
    BACKBONES.register("gated", example.PART.settings, example.PART.make)
    own = {"gated": {"deter": 16, "layers": 2}}
    return changed(presets.make("s4wm", "micro"), world={"backbone": "gated", "own": own})


@pytest.mark.long
def test_it_learns_and_its_policy_file_answers_as_torch_does(example, capsys):
    example.main(updates=20)
    text = capsys.readouterr().out
    first, last = map(float, re.search(r"fell from ([\d.]+) to ([\d.]+)", text).groups())
    assert last < first
    assert "carry in the policy file: states, stoch" in text


def test_a_sequence_is_its_steps(example):
    generator = torch.Generator().manual_seed(0)
    net = example.GatedRecurrence(example.GatedConfig(deter=8, layers=2))
    x = torch.randn(3, 7, 1, 8, generator=generator)
    is_first = torch.rand(3, 7, generator=generator) < 0.3
    memory = (torch.randn(3, 2, 8, generator=generator),)
    whole, history = net(x, is_first, memory, None)
    for t in range(7):
        out, memory = net.step(x[:, t], is_first[:, t], memory)
        torch.testing.assert_close(out, whole[:, t])
        torch.testing.assert_close(memory[0], net.at(history, torch.tensor([t]))[0])


def test_the_generator_decides_the_weights_of_torch_s_own_layers_too(gated):
    def weights(seed):
        core = AgentCore(SPEC, gated, generator=torch.Generator().manual_seed(seed))
        return core.world.dynamics.backbone.layers[0].gate.weight

    before = torch.random.get_rng_state()
    one = weights(0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(3)  # whatever else a process draws
    assert torch.equal(weights(0), one)
    assert not torch.equal(weights(1), one)


def test_its_settings_survive_a_file_and_are_checked(gated):
    again = Config.model_validate_json(gated.model_dump_json())
    assert again == gated
    assert again.world.sizes.deter == 16
    assert presets.row_of(again).backbone == "gated"
    with pytest.raises(ValueError, match="deter"):
        changed(gated, world={"own": {"gated": {"deter": 0}}})
    with pytest.raises(ValueError, match="did you mean 'gated'"):
        changed(gated, world={"own": {"gatd": {"layers": 1}}})


def test_without_settings_it_has_its_defaults(gated):
    world = changed(presets.make("s4wm", "micro"), world={"backbone": "gated"}).world
    assert world.own["gated"].deter == 128


def test_the_command_line_sets_it_by_name(gated):
    words = ["--world.backbone", "gated", "--world.own.gated.layers", "3"]
    start = presets.make("s4wm", "micro")
    start = start.model_copy(update={"world": start.world.with_named(words)})
    world = parse(Config, words, verb="train", default=start).world
    assert (world.backbone, world.own["gated"].layers, world.own["gated"].deter) == (
        "gated",
        3,
        128,
    )


def test_a_part_that_is_not_chosen_leaves_no_settings(gated):
    start = presets.make("s4wm", "micro")
    start = start.model_copy(update={"world": start.world.with_named(["gated"])})
    assert parse(Config, [], verb="train", default=start).world.own == {}

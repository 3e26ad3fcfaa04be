import copy

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from wm_core.agents.agent import AgentCore
from wm_core.contract.card import TensorInfo
from wm_core.contract.errors import SettingsError
from wm_core.contract.golden import check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ImageSpec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep
from wm_core.exporting.to_onnx import read_weights_sha256, trace

pytestmark = pytest.mark.long


def initializers(model):
    """Every weight and constant by name, the two parts of a divided weight together."""
    proto = onnx.load_model_from_string(model)
    found = {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer}
    for name in [n.removesuffix(".known") for n in found if n.endswith(".known")]:
        parts = [found.pop(f"{name}.{side}") for side in ("known", "observed")]
        found[name] = np.concatenate(parts, 1)
    return found


@pytest.fixture
def moved(agent, shaken):
    """The agent with other weights than those that the exporter traced; put back afterwards."""
    before = copy.deepcopy(agent.state_dict())
    shaken(agent, 9)
    yield agent
    agent.load_state_dict(before)


def test_substituted_weights_make_the_file_that_a_fresh_trace_makes(
    export, exporter, moved, spec, config
):
    substituted = exporter.export(1, 0, 0, golden_steps=20)
    fresh = PolicyExporter(moved, spec, config).export(1, 0, 0, golden_steps=20)
    assert substituted.weights_sha256 == fresh.weights_sha256 != export.weights_sha256
    assert substituted.golden == fresh.golden
    got, want = initializers(substituted.onnx), initializers(fresh.onnx)
    assert got.keys() == want.keys()
    for name in want:
        np.testing.assert_array_equal(got[name], want[name])
    runner = PolicyRunner.from_bytes(substituted.onnx)
    check_golden(fresh.golden, runner.card, runner.call)


def test_every_parameter_is_an_initializer_of_its_own_name(export, agent, spec):
    found = initializers(export.onnx)
    for name, parameter in PolicyStep(agent, spec).named_parameters():
        np.testing.assert_array_equal(found[name], parameter.detach())


def test_what_an_actor_reads_of_deter_is_multiplied_ahead_of_the_observation(export, config):
    proto = onnx.load_model_from_string(export.onnx)
    sizes = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    weight, width = "actor.layers.0.linear.weight", config.world.sizes.deter
    assert sizes[f"{weight}.known"][1] == width
    assert sizes[f"{weight}.observed"][1] == config.world.sizes.stoch
    runner = PolicyRunner.from_bytes(export.onnx)
    behind = set(runner._graph._rest.inputs)
    assert behind.isdisjoint({"next_deter", *runner.initial_carry()})
    assert any(name.endswith("_known") for name in behind)


def test_an_untrained_agent_s_zeros_stay_exchangeable(export, exporter):
    """A bias of zeros and a scale of ones are weights like any other, not constants."""
    zeros = {n: np.zeros(p.shape, np.float32) for n, p in exporter.step.named_parameters()}
    assert set(zeros) <= set(initializers(export.onnx))


def test_the_weights_hash_is_that_of_the_file_and_changes_with_a_weight(export, agent, spec):
    runner = PolicyRunner.from_bytes(export.onnx)
    assert runner.card.weights_sha256 == export.weights_sha256 == read_weights_sha256(export.onnx)
    proto = onnx.load_model_from_string(export.onnx)
    tensor = next(t for t in proto.graph.initializer if t.name == "actor.mean.bias")
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]
    assert read_weights_sha256(proto.SerializeToString()) != export.weights_sha256


def test_equal_weights_make_equal_hashes_whatever_the_version(exporter):
    first, second = (exporter.export(v, v, v, golden_steps=2) for v in (1, 2))
    assert first.weights_sha256 == second.weights_sha256
    assert first.onnx != second.onnx


def test_the_file_is_one_valid_model_of_opset_18_and_ir_8(export):
    proto = onnx.load_model_from_string(export.onnx)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == 8
    assert [(o.domain, o.version) for o in proto.opset_import] == [("", 18)]
    assert not proto.functions
    assert all(t.data_location == onnx.TensorProto.DEFAULT for t in proto.graph.initializer)
    assert {n.op_type for n in proto.graph.node}.isdisjoint(
        {"Loop", "If", "Scan", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
    )


def test_the_file_knows_nothing_of_the_machine_that_wrote_it(export):
    for trace_of_it in (b".py", b"/home", b"/root", b"/tmp", b"site-packages", b"wm_core/"):
        assert trace_of_it not in export.onnx


def test_a_weight_of_another_shape_or_name_is_refused(exporter, export):
    weights = {n: p.numpy() for n, p in exporter.step.named_parameters()}
    template = exporter._template
    with pytest.raises(ValueError, match="differ from the traced graph's"):
        template.substitute({n: w for n, w in weights.items() if n != "actor.mean.bias"})
    with pytest.raises(ValueError, match=r"actor.mean.bias: expected \(2,\) float32, got \(3,\)"):
        template.substitute(weights | {"actor.mean.bias": np.zeros(3, np.float32)})


class Forgetful(nn.Module):
    """A module with a parameter that its graph has no use for."""

    def __init__(self):
        super().__init__()
        self.used, self.unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))

    def forward(self, x):
        return x * self.used


class Scaled(nn.Module):
    """Layers behind a factor that is no parameter, such as a running statistic."""

    def __init__(self, layers):
        super().__init__()
        self.layers = layers
        self.register_buffer("factor", torch.ones(1), persistent=False)  # in no state_dict either

    def forward(self, x):
        return self.layers(x / self.factor)


def test_a_buffer_that_changed_since_the_first_version_is_in_the_next(spec, config):
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(1))
    agent.behavior.actor.layers = Scaled(agent.behavior.actor.layers)
    exporter = PolicyExporter(agent, spec, config)
    first = exporter.export(0, 0, 0, golden_steps=4)
    agent.behavior.actor.layers.factor.fill_(3.0)
    second = exporter.export(1, 0, 0, golden_steps=4)
    runner = PolicyRunner.from_bytes(second.onnx)
    check_golden(second.golden, runner.card, runner.call)
    assert second.weights_sha256 != first.weights_sha256


def test_a_graph_that_lost_a_parameter_is_refused():
    info = TensorInfo(name="x", dtype="float32", shape=(1, 2))
    out = TensorInfo(name="y", dtype="float32", shape=(1, 2))
    with pytest.raises(RuntimeError, match="'unused' is not in the traced graph"):
        trace(Forgetful().eval(), [info], [out])


def test_an_input_named_like_the_policy_s_own_is_refused(agent, spec):
    clash = spec.model_copy(update={"images": {**spec.images, "stoch": ImageSpec()}})
    with pytest.raises(SettingsError, match="stoch"):
        PolicyStep(agent, clash)


def test_exporting_leaves_the_agent_as_it_was(agent, exporter):
    before = {n: p.detach().clone() for n, p in agent.named_parameters()}
    grads = {n: p.requires_grad for n, p in agent.named_parameters()}
    exporter.export(0, 0, 0, golden_steps=2)
    assert agent.training
    for name, parameter in agent.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.requires_grad == grads[name]


def test_the_card_tells_where_the_policy_comes_from(export, spec):
    card = PolicyRunner.from_bytes(export.onnx).card
    assert (card.version, card.learner_updates, card.agent_steps) == (7, 300, 4000)
    assert (card.run_id, card.commit, card.task) == ("a-run", "abc", "none")
    assert (card.preset, card.size, card.opset) == ("dreamer_v3", "micro", 18)
    assert card.spec == spec
    assert card.exporter.keys() >= {"torch", "onnx"}
    assert card.max_obs_age_s == pytest.approx(2 * spec.period_s)

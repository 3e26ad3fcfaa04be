"""Names of inputs in an exported policy: refused where they are its own, else any will do."""

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.contract.card import TensorInfo
from wm_core.contract.errors import SettingsError
from wm_core.contract.golden import PARITY, check_golden
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Spec, VectorSpec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep, check_names
from wm_core.exporting.to_onnx import trace

ODD = ("items", "type", "training", "low", "span", "linear", "reward")


def with_vectors(spec: Spec, *names: str) -> Spec:
    return spec.model_copy(update={"vectors": {name: VectorSpec(size=2) for name in names}})


@pytest.mark.parametrize("preset", presets.PRESETS)
def test_all_that_a_policy_reads_and_answers_itself_is_refused_as_an_input(preset, small):
    parts = small(preset)
    agent = parts.agent()
    step = PolicyStep(agent, parts.spec)
    own = {info.name for info in (*step.inputs(), *step.outputs())} - {*parts.spec.inputs}
    assert {"action", "command", "prev_action"} <= own
    for name in own:
        spec = with_vectors(parts.spec, "joints", name)
        with pytest.raises(SettingsError, match=rf"^inputs \['{name}'\] have names that a policy"):
            check_names(agent, spec)
        with pytest.raises(SettingsError, match=name):
            PolicyStep(agent, spec)


def test_names_that_only_another_system_needs_are_free(small):
    parts = small("dreamer_v3")
    check_names(parts.agent(), with_vectors(parts.spec, "states", "cell", "keys", *ODD))


class Bounded(nn.Module):
    """Multiplies two inputs with a weight and a buffer, which the graph calls ``low``."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("low", torch.tensor([1.0, 2.0]), persistent=False)
        self.net = nn.Linear(2, 2)

    def forward(self, one: torch.Tensor, other: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.net(one) + other * self.low,)


def row(name: str) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=(1, 2))


@pytest.mark.parametrize("names", [("low", "b"), ("a", "low"), ("mul", "linear")])
def test_an_input_may_have_the_name_of_a_tensor_inside_the_graph(names):
    plain, other = (
        trace(Bounded().eval(), [row(name) for name in of], [row("out")])
        for of in (("a", "b"), names)
    )
    inner = {name for node in plain._model.graph.node for name in node.output}
    assert {"linear", "mul"} < inner
    net = Bounded()
    weights = {name: p.detach().numpy() for name, p in net.named_parameters()}
    other.substitute(weights)
    given = [torch.tensor([[3.0, 4.0]]), torch.tensor([[5.0, 6.0]])]
    feed = {name: value.numpy() for name, value in zip(names, given, strict=True)}
    (got,) = ReferenceEvaluator(other._model).run(None, feed)
    np.testing.assert_allclose(got, net(*given)[0].detach().numpy(), rtol=1e-5)


@pytest.mark.long
def test_a_policy_with_inputs_of_odd_names_proves_itself(small, shaken):
    parts = small("dreamer_v3")
    spec = with_vectors(parts.spec, *ODD)
    agent = AgentCore(spec, parts.config, generator=torch.Generator().manual_seed(0))
    shaken(agent, 2)
    made = PolicyExporter(agent, spec, parts.config).export(1, 0, 0, golden_steps=10)
    runner = PolicyRunner.from_bytes(made.onnx)
    assert check_golden(made.golden, runner.card, runner.call) <= PARITY


@pytest.mark.parametrize(
    ("preset", "squashed"), [("dreamer_v3", False), ("transdreamer", True), ("twm", True)]
)
def test_the_value_says_which_rewards_it_counts(preset, squashed, small):
    """A value of squashed rewards is no expected return of the task."""
    parts = small(preset)
    told = {info.name: info.meaning for info in PolicyStep(parts.agent(), parts.spec).outputs()}
    assert ("tanh" in told["value"]) == squashed

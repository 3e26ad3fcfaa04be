"""A policy in two halves: what is computed ahead of the observation changes no answer."""

import numpy as np
import onnx
import pytest

from wm_core.contract.card import TensorInfo
from wm_core.contract.engine import PolicyEngine
from wm_core.contract.errors import PolicyFailed, PolicyRefused
from wm_core.contract.golden import check_golden
from wm_core.contract.onnx_cut import Graph
from wm_core.contract.runner import PolicyRunner

COUNTED = TensorInfo(name="kept", dtype="float32", shape=(1, 1))
NUDGED = TensorInfo(name="centred", dtype="float32", shape=(1, 1))
LIMITS = tuple(TensorInfo(name=n, dtype="float32", shape=(1, 1)) for n in ("down", "up"))


@pytest.fixture
def halved(model_of):
    return model_of(split=(COUNTED, NUDGED, *LIMITS))


@pytest.fixture
def runners(halved):
    return PolicyRunner.from_bytes(halved), PolicyRunner.from_bytes(halved, halves=False)


def steps(engine, order, count=60):
    """Every answer of a run; ``order`` says what happens beside acting."""
    rng, told, sent = np.random.default_rng(0), [], np.zeros(1, np.float32)
    for t in range(count):
        obs = engine.runner.spec.zeros() | {"proprio": rng.normal(size=2).astype(np.float32)}
        out = engine.act(obs, sent, t % 11 == 10)
        told.append((out.action.item(), out.command.item(), out.value, out.surprise))
        sent = out.action if t % 3 else -out.action
        order(engine, sent, t)
    return told


def nothing(engine, sent, t):
    pass


def as_meant(engine, sent, t):
    engine.prepare(sent)


def sometimes(engine, sent, t):
    if t % 2:
        engine.prepare(sent)


def with_another_action(engine, sent, t):
    engine.prepare(np.clip(sent + 0.25, -1, 1))


def twice(engine, sent, t):
    engine.prepare(np.clip(sent - 0.25, -1, 1))
    engine.prepare(sent)


@pytest.mark.parametrize("order", [as_meant, sometimes, with_another_action, twice])
@pytest.mark.parametrize("mean", [False, True])
def test_preparing_changes_no_answer_whatever_is_sent_and_wherever_episodes_begin(
    runners, order, mean
):
    halves, whole = runners
    want = steps(PolicyEngine(whole, seed=3, mean=mean), nothing)
    assert steps(PolicyEngine(halves, seed=3, mean=mean), nothing) == want
    assert steps(PolicyEngine(halves, seed=3, mean=mean), order) == want
    assert steps(PolicyEngine(whole, seed=3, mean=mean), order) == want


def test_a_reset_and_another_carry_after_preparing_are_heeded(runners):
    sent, spec = np.zeros(1, np.float32), runners[0].spec
    for runner in runners:
        engine = PolicyEngine(runner, seed=0)
        for _ in range(3):
            engine.act(spec.zeros(), sent)
        engine.prepare(sent)
        engine.reset()
        assert engine.act(spec.zeros(), sent).value == 1
        engine.prepare(sent)
        engine.carry = {"count": np.full((1, 1), 7, np.float32)}
        assert engine.act(spec.zeros(), sent).value == 8
        engine.reset()
        engine.prepare(sent)  # the next step is known to begin an episode
        assert engine.act(spec.zeros(), sent).value == 1


def test_a_change_to_the_mean_action_holds_for_the_step_that_is_prepared(runners):
    sent = np.zeros(1, np.float32)
    engine = PolicyEngine(runners[0], seed=0)
    engine.prepare(sent)
    engine.mean = True
    np.testing.assert_allclose(engine.act(runners[0].spec.zeros(), sent).action, [0.1], atol=1e-6)


def test_a_refused_observation_costs_no_draw(runners):
    sent, spec = np.zeros(1, np.float32), runners[0].spec
    engine, other = (PolicyEngine(runners[0], seed=0) for _ in range(2))
    engine.prepare(sent)
    with pytest.raises(Exception, match="expected"):
        engine.act(spec.zeros() | {"image": np.zeros((8, 8, 1), np.uint8)}, sent)
    assert engine.act(spec.zeros(), sent).surprise == other.act(spec.zeros(), sent).surprise


def test_the_half_ahead_runs_before_the_observation_and_not_again(runners):
    """Proven by a carry that the caller spoils after it was read."""
    runner, sent = runners[0], np.zeros(1, np.float32)
    engine = PolicyEngine(runner, seed=0)
    engine.act(runner.spec.zeros(), sent)
    engine.prepare(sent)
    engine._carry["count"] = np.full((1, 1), 50, np.float32)
    assert engine.act(runner.spec.zeros(), sent).value == 2


def test_a_failure_ahead_is_said_by_the_step_and_not_before(model_of, graph):
    table = graph.replace(
        "kept = Mul(count, keep)",
        "at = Cast<to = 7>(prev_action)\n    bent = Gather(table, at)\n"
        "    even = Reshape(bent, square)\n    lent = Mul(even, none)\n"
        "    plain = Mul(count, keep)\n    kept = Add(plain, lent)",
    ).replace("int64[1] flat", "float[1] table = {0.0}, int64[2] square = {1, 1}, int64[1] flat")
    engine = PolicyEngine(PolicyRunner.from_bytes(model_of(graph=table, split=(COUNTED,))), seed=0)
    spec = engine.runner.spec
    assert engine.act(spec.zeros(), np.zeros(1, np.float32)).value == 1
    far = np.ones(1, np.float32)
    engine.prepare(far)
    with pytest.raises(PolicyFailed, match="does not run"):
        engine.act(spec.zeros(), far)
    assert engine.act(spec.zeros(), np.zeros(1, np.float32)).value == 1


def test_estimates_are_computed_where_they_are_wanted(runners):
    sent = np.zeros(1, np.float32)
    for runner in runners:
        engine = PolicyEngine(runner, seed=0, estimates=())
        out = engine.act(runner.spec.zeros(), sent)
        assert (out.value, out.surprise) == (None, None)
        engine.estimates = ("surprise",)
        out = engine.act(runner.spec.zeros(), sent)
        assert out.value is None
        assert out.surprise is not None


def test_an_estimate_is_a_part_of_its_own_that_acting_does_without(halved):
    proto = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(halved))
    told = PolicyRunner.from_bytes(proto.SerializeToString())
    assert set(told._graph._estimates) == {"value"}  # surprise is the noise: it needs no frame
    engines = [PolicyEngine(r, seed=3) for r in (told, PolicyRunner.from_bytes(halved))]
    assert steps(engines[0], as_meant) == steps(engines[1], as_meant)
    without = PolicyEngine(told, seed=3, estimates=())
    told._graph._estimates["value"][0].close()  # so that running it fails
    assert [row[:2] for row in steps(without, as_meant)] == [
        row[:2] for row in steps(PolicyEngine(PolicyRunner.from_bytes(halved), seed=3), as_meant)
    ]


def test_the_golden_rollout_proves_both_ways(runners, golden_of):
    for runner in runners:
        check_golden(golden_of(), runner.card, runner.call)


@pytest.mark.parametrize(
    ("split", "said"),
    [
        (
            (COUNTED, TensorInfo(name="felt", dtype="float32", shape=(1, 1))),
            "needs the observations",
        ),
        (
            (TensorInfo(name="no_such", dtype="float32", shape=(1, 1)),),
            "computes nothing of that name",
        ),
        ((TensorInfo(name="kept", dtype="int64", shape=(1, 1)),), "does not load"),
    ],
)
def test_a_card_that_splits_where_the_graph_cannot_be_is_refused(model_of, split, said):
    with pytest.raises(PolicyRefused, match=said):
        PolicyRunner.from_bytes(model_of(split=split))


def test_a_split_of_a_wrong_shape_fails_the_golden_rollout(model_of, golden_of):
    wide = COUNTED.model_copy(update={"shape": (1, 3)})
    with pytest.raises(PolicyRefused):
        _proven(model_of(split=(wide,)), golden_of())


def _proven(model, golden):
    runner = PolicyRunner.from_bytes(model)
    check_golden(golden, runner.card, runner.call)


def test_the_halves_hold_each_weight_once(halved):
    graph = Graph(halved)
    ahead = graph.cut((COUNTED,), ["kept"])
    rest = graph.cut((COUNTED,), ["action", "command", "next_count"])
    assert ahead.inputs == ("count", "is_first")
    assert rest.inputs == ("proprio", "prev_action", "noise_action", "kept")
    assert b"tenth" not in b"".join(ahead.pieces)
    assert b"tenth" in b"".join(rest.pieces)
    assert graph.inputs["image"] == ("uint8", (1, 4, 4, 1))


@pytest.mark.parametrize("cut", [1, 7, 100, 1000])
def test_bytes_that_are_no_model_are_refused(halved, cut):
    with pytest.raises(PolicyRefused, match="no ONNX model"):
        Graph(halved[: len(halved) - cut])

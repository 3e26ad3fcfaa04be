import dataclasses

import numpy as np
import pytest

from wm_core.contract.errors import PolicyFailed, SpecMismatch
from wm_core.contract.onnx_native import NativeSession, library
from wm_core.contract.onnx_session import PythonSession
from wm_core.contract.runner import PolicyEngine, PolicyRunner

STILL = np.zeros(1, np.float32)


def act(engine, sent=STILL, *, first=False):
    return engine.act(engine.runner.spec.zeros(), sent, first)


def test_one_step_gives_what_the_graph_computes(runner):
    out = act(PolicyEngine(runner, seed=0, mean=True))
    np.testing.assert_allclose(out.action, [0.1], atol=1e-6)
    np.testing.assert_allclose(out.command, [2.2], atol=1e-6)
    assert out.value == 1.0
    assert 0 <= out.surprise < 1
    assert out.action.dtype == out.command.dtype == np.float32


def test_the_engine_keeps_the_carry_and_a_reset_forgets_it(runner):
    engine = PolicyEngine(runner, seed=0, mean=True)
    assert [act(engine).value for _ in range(3)] == [1, 2, 3]
    engine.reset()
    assert act(engine).value == 1
    assert act(engine).value == 2
    assert act(engine, first=True).value == 1


def test_the_first_step_of_an_engine_begins_an_episode(runner):
    engine = PolicyEngine(runner, seed=0)
    assert act(engine, first=False).value == 1


def test_the_slew_limit_holds_against_what_was_sent_even_on_the_first_step(runner):
    engine = PolicyEngine(runner, seed=0, mean=True)
    out = act(engine, np.array([-0.9], np.float32), first=True)
    np.testing.assert_allclose(out.action, [-0.4], atol=1e-6)


def test_equal_seeds_draw_equal_actions_and_other_seeds_others(runner):
    engines = [PolicyEngine(runner, seed=s) for s in (1, 1, 2)]
    same, again, other = ([act(e).action.item() for _ in range(10)] for e in engines)
    assert same == again
    assert same != other
    assert len(set(same)) > 5


def test_engines_that_share_a_runner_do_not_disturb_one_another(runner):
    alone = PolicyEngine(runner, seed=4)
    want = [act(alone).action.item() for _ in range(6)]
    one, two = PolicyEngine(runner, seed=4), PolicyEngine(runner, seed=5)
    got = []
    for _ in range(6):
        got.append(act(one).action.item())
        act(two)
    assert got == want


def test_the_mean_still_draws_the_latent(runner):
    engine = PolicyEngine(runner, seed=0, mean=True)
    outs = [act(engine, first=True) for _ in range(5)]
    assert len({out.action.item() for out in outs}) == 1
    assert len({out.surprise for out in outs}) == 5


def test_a_carry_can_be_taken_out_and_put_into_another_engine(runner):
    one, two = PolicyEngine(runner, seed=0), PolicyEngine(runner, seed=0)
    for _ in range(4):
        act(one)
    two.carry = one.carry
    assert act(two).value == 5
    assert PolicyEngine(runner, seed=0).carry["count"].item() == 0


def test_an_answer_is_not_overwritten_by_the_next(runner):
    engine = PolicyEngine(runner, seed=0)
    first = act(engine)
    kept = first.action.copy(), first.carry["count"].copy()
    act(engine)
    assert (first.action, first.carry["count"]) == kept


@pytest.mark.parametrize(
    ("carry", "said"),
    [({}, r"expected \['count'\], got \[\]"), ({"count": np.zeros((1, 2))}, r"\(1, 1\)")],
)
def test_a_carry_that_does_not_fit_is_refused(runner, carry, said):
    engine = PolicyEngine(runner, seed=0)
    with pytest.raises(SpecMismatch, match=said):
        engine.carry = carry


def test_a_camera_of_another_size_is_refused_and_the_carry_stays(runner):
    engine = PolicyEngine(runner, seed=0)
    act(engine)
    obs = runner.spec.zeros() | {"image": np.zeros((8, 8, 1), np.uint8)}
    with pytest.raises(SpecMismatch, match=r"expected \(4, 4, 1\) uint8, got \(8, 8, 1\)"):
        engine.act(obs, STILL, False)
    with pytest.raises(SpecMismatch, match=r"prev_action: expected \(1,\)"):
        engine.act(runner.spec.zeros(), np.zeros(2, np.float32), False)
    assert act(engine).value == 2


def test_nan_is_refused_as_an_answer_and_the_next_step_begins_an_episode(runner):
    engine = PolicyEngine(runner, seed=0)
    act(engine)
    broken = runner.spec.zeros() | {"proprio": np.array([np.nan, 0], np.float32)}
    with pytest.raises(PolicyFailed, match="expected finite numbers"):
        engine.act(broken, STILL, False)
    assert act(engine).value == 1


def test_a_failing_operator_is_reported_and_the_next_step_begins_an_episode(model_of, picky_graph):
    runner = PolicyRunner.from_bytes(model_of(graph=picky_graph))
    engine = PolicyEngine(runner, seed=0, mean=True)
    assert [act(engine).value for _ in range(2)] == [1, 2]
    obs = runner.spec.zeros() | {"proprio": np.array([9.0, 9.0], np.float32)}
    with pytest.raises(PolicyFailed, match="does not run"):
        engine.act(obs, STILL)
    assert act(engine).value == 1


def test_value_and_surprise_are_none_where_the_policy_has_none(model_of, graph):
    lines = graph.replace(", float[1] value,\n        float[1] surprise)", ")")
    lines = "\n".join(line for line in lines.splitlines() if "Reshape" not in line)
    out = act(PolicyEngine(PolicyRunner.from_bytes(model_of(graph=lines)), seed=0))
    assert out.value is None
    assert out.surprise is None


def test_an_output_is_frozen(runner):
    out = act(PolicyEngine(runner, seed=0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        out.action = STILL


@pytest.mark.parametrize("sent", [30.0, -1.01, np.nan, np.inf])
def test_an_action_in_physical_units_is_refused_and_the_carry_stays(runner, sent):
    engine = PolicyEngine(runner, seed=0)
    act(engine)
    with pytest.raises(SpecMismatch, match=r"prev_action: expected \[-1, 1\]"):
        act(engine, np.array([sent], np.float32))
    assert act(engine).value == 2


@pytest.mark.parametrize(
    ("right", "spoilt", "said"),
    [
        ("surprise = Reshape(noise_latent, flat)", "surprise = Div(noughts, noughts)", "surprise"),
        ("value = Reshape(next_count, flat)", "value = Log(noughts)", "value"),
        ("next_count = Add(counted, one)", "next_count = Div(counted, none)", "count"),
    ],
)
def test_nan_or_infinity_in_any_answer_is_a_failure(model_of, graph, right, spoilt, said):
    spoilt = graph.replace("int64[1] flat", "float[1] noughts = {0.0}, int64[1] flat").replace(
        right, spoilt
    )
    runner = PolicyRunner.from_bytes(model_of(graph=spoilt))
    with pytest.raises(PolicyFailed, match=f"'{said}': expected finite numbers"):
        act(PolicyEngine(runner, seed=0))


def test_a_carry_with_nan_is_refused(runner):
    engine = PolicyEngine(runner, seed=0)
    engine.carry = {"count": np.full((1, 1), np.nan, np.float32)}
    with pytest.raises(PolicyFailed, match="carry 'count'"):
        act(engine)


def test_a_policy_that_was_cancelled_or_closed_runs_no_more(runner, model_of):
    runner.cancel()
    with pytest.raises(PolicyFailed, match="does not run"):
        act(PolicyEngine(runner, seed=0))
    other = PolicyRunner.from_bytes(model_of())
    other.close()
    other.close()
    with pytest.raises(PolicyFailed, match="closed"):
        act(PolicyEngine(other, seed=0))


@pytest.mark.skipif(library() is None, reason="this onnxruntime has no C library")
def test_both_ways_to_the_runtime_give_the_same_numbers(model_of, runner):
    model = np.frombuffer(model_of(), np.uint8)
    native, python = NativeSession(model), PythonSession(model)
    for which in ("inputs", "outputs"):
        one, two = (
            {(i.name, i.dtype, i.shape) for i in getattr(s, which)} for s in (native, python)
        )
        assert one == two
    names = [info.name for info in native.outputs]
    rng = np.random.default_rng(0)
    for _ in range(5):
        feed = {
            i.name: rng.integers(0, 2, i.shape).astype(i.dtype)
            if i.dtype in ("bool", "uint8")
            else rng.random(i.shape, np.float32)
            for i in runner.card.inputs
        }
        for outputs in (names, names[:2], names):
            one, two = native.run(feed, outputs), python.run(feed, outputs)
            assert [*one] == [*two] == outputs
            assert all(np.array_equal(one[name], two[name]) for name in outputs)

"""`wm export --int8`: calibrated on stored steps, proved by its own rollout, and let through only
where it acts as well as the float32 policy."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces

from wm_core.cli.main import main
from wm_core.contract.card import Deviation
from wm_core.contract.conformance import check_policy
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.golden import MAX_QUANTIZED, read_golden
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec
from wm_core.contract.step import Step
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.stored import LEAST_NATS, replay, stored_steps, surprise_limit
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk
from wm_core.library import return_gate
from wm_core.library.export import export
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training import checkpoint

pytestmark = pytest.mark.long

STEPS = 300


class Lean(gymnasium.Env):
    """Pays the first action."""

    metadata = {"render_fps": 20, "render_modes": []}  # noqa: RUF012
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    observation_space = spaces.Dict({"image": spaces.Box(0, 255, (16, 16, 3), np.uint8)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.seen(), {}

    def step(self, action):
        self.t += 1
        return self.seen(), float(action[0]), False, self.t >= 5, {}

    def seen(self):
        return {"image": self.np_random.integers(0, 256, (16, 16, 3), np.uint8)}


if "WmLean-v0" not in gymnasium.registry:
    gymnasium.register("WmLean-v0", Lean)


def leaning(agent, towards):
    """Let the mean of every action be far towards one side, whatever is seen."""
    with torch.no_grad():
        agent.behavior.actor.mean.bias.fill_(towards)
    return agent


@pytest.fixture(scope="module")
def parts(small):
    return small("dreamer_v3")


@pytest.fixture(scope="module")
def agent(parts):
    return leaning(parts.agent(), 2.0)


def fill(root, spec):
    """Store random steps of one robot: three episodes of a hundred."""
    rng, ledger = np.random.default_rng(0), Ledger(root / LEDGER_NAME)
    steps = [
        Step(
            obs={k: s.random(rng) for k, s in spec.inputs.items()},
            action=spec.action.random(rng),
            reward=0.0 if number % 100 == 0 else 0.1,
            is_first=number % 100 == 0,
            is_last=number % 100 == 99,
            is_terminal=False,
            stamp_ns=10**9 + number * 50_000_000,
        )
        for number in range(STEPS)
    ]
    key = ChunkKey("robot", "0" * 32, 0)
    meta = ChunkMeta(robot="robot", session="0" * 32, seq=0, spec=spec, first_step=0, steps=STEPS)
    assert ingest(root, ledger, key, encode_chunk(steps, meta)).kind == "stored"
    ledger.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory, parts, agent):
    """A function that makes the folder of a run, with a store or without."""

    def make(task="", *, stored=True):
        folder = tmp_path_factory.mktemp("run")
        state = {
            "config": parts.config.model_dump(),
            "spec": parts.spec.model_dump(mode="json"),
            "task": task,
            "learner": {"agent": agent.state_dict(), "updates": 40},
            "agent_steps": 900,
        }
        checkpoint.save(folder, state, updates=40, keep=1)
        if stored:
            fill(folder / "store", parts.spec)
        return folder

    return make


@pytest.fixture(scope="module")
def robot(run):
    """The run of a robot, and its policy in float32 within the folder ``policy``."""
    folder = run()
    export(folder, folder / "policy", golden_steps=20)
    return folder


@pytest.fixture
def store(robot):
    opened = Store(robot / "store", cache_bytes=10**7)
    opened.refresh()
    yield opened
    opened.close()


def test_a_robot_s_policy_is_let_through_by_its_actions_over_stored_steps(robot, tmp_path, capsys):
    arguments = ["export", "--run", str(robot), "--to", str(tmp_path / "int8"), "--int8"]
    assert main([*arguments, "--golden-steps", "20"]) == 0
    card = check_policy(tmp_path / "int8").card
    assert card.quantized == "int8"
    assert card.return_loss is None
    assert card.action_deviation.steps == STEPS
    assert 0.0 < card.action_deviation.mean < 0.04
    assert card.tolerance.mean <= card.tolerance.largest <= MAX_QUANTIZED
    said = " ".join(capsys.readouterr().out.split())
    assert "the return was not measured (the run names no task)" in said
    assert f"over {STEPS} stored steps" in said
    own, original = (
        read_golden((folder / "policy.golden.npz").read_bytes())
        for folder in (tmp_path / "int8", robot / "policy")
    )
    np.testing.assert_array_equal(own["in/image"], original["in/image"])
    assert (own["out/next_deter"] != original["out/next_deter"]).any()  # its rollout is its own


def test_a_task_s_policy_says_what_it_lost_of_the_return(run, tmp_path):
    card = export(run("WmLean-v0"), tmp_path / "policy", int8=True, golden_steps=20).card
    assert card.return_loss.original == pytest.approx(5.0, rel=0.1)  # five steps, each near 1
    assert card.return_loss.low <= card.return_loss.loss <= card.return_loss.high
    assert abs(card.return_loss.loss) < 0.02


def test_nothing_is_written_where_there_is_nothing_to_calibrate_on(run, tmp_path, capsys):
    out = tmp_path / "policy"
    arguments = ["export", "--run", str(run(stored=False)), "--to", str(out), "--int8"]
    assert main(arguments) == 2
    assert "expected experience to calibrate on" in capsys.readouterr().err
    assert not out.exists()


def test_a_policy_that_lost_much_is_refused_with_the_figures(parts):
    mine = leaning(parts.agent(), 2.0)
    exporter = PolicyExporter(mine, parts.spec, parts.config, task="WmLean-v0")
    good = PolicyRunner.from_bytes(exporter.export(0, 0, 0, 1).onnx)
    leaning(mine, 0.0)
    worse = PolicyRunner.from_bytes(exporter.export(1, 0, 0, 1).onnx)
    loss = return_gate.measure_return(good, worse, episodes=50, max_loss=0.02)
    assert loss.episodes == return_gate.DECIDES  # the interval was clear
    with pytest.raises(
        PolicyRefused, match=r"loses \d+\.\d% .*95 %.* 10 episodes.* at most 2\.0%"
    ):
        return_gate.check_return(loss, 0.02)


def test_a_loss_is_a_share_of_the_original_s_return_with_its_interval():
    loss = return_gate.loss_of([10.0, 10.0, 10.0, 10.0], [9.0, 10.0, 9.0, 10.0])
    assert (loss.loss, loss.scale, loss.original, loss.quantized) == (0.05, 10.0, 10.0, 9.5)
    assert loss.low < 0.0 < 0.05 < loss.high
    assert not return_gate.is_proven(loss, 0.06)


def test_returns_around_zero_are_measured_by_their_spread():
    assert return_gate.loss_of([-1.0, 1.0], [-1.5, 0.5]).loss == pytest.approx(0.5 / 2**0.5)


@pytest.mark.parametrize(
    ("mean", "largest", "discrete", "passes"),
    [
        (0.03, 0.4, False, True),
        (0.05, 0.4, False, False),
        (0.03, 0.6, False, False),
        (0.015, 1.0, True, True),
        (0.03, 1.0, True, False),
        (float("nan"), 0.0, True, False),
    ],
)
def test_actions_that_are_far_off_are_refused(mean, largest, discrete, passes):
    deviation = Deviation.model_construct(mean=mean, largest=largest, steps=10)
    if passes:
        return_gate.check_actions(deviation, 0.02, discrete=discrete)
    else:
        with pytest.raises(PolicyRefused, match=r"stored steps; at most 2\.0% of the range"):
            return_gate.check_actions(deviation, 0.02, discrete=discrete)


def test_of_choices_the_share_that_differs_counts_and_of_others_the_distance():
    one, three = ActionSpec.choices(3), ActionSpec.several_choices((3, 2, 2))
    box = ActionSpec(low=(0.0,) * 2, high=(1.0,) * 2)
    for spec, commands, expected in [
        (one, ([2], [2]), 0.0),
        (one, ([2], [0]), 1.0),
        (three, ([2, 0, 1], [2, 0, 1]), 0.0),
        (three, ([2, 0, 1], [1, 0, 1]), 1 / 3),
        (three, ([2, 0, 1], [0, 1, 0]), 1.0),
        (box, ([0.5, 0.5], [0.6, 0.2]), 0.6),
    ]:
        actions = (spec.from_physical(np.array(command)) for command in commands)
        assert return_gate.deviation_of(spec, *actions) == pytest.approx(expected)


# ------------------------------------------------------------------ what is replayed


def test_the_limit_of_surprise_is_above_what_the_stored_steps_give(robot, store):
    runner = PolicyRunner.load(robot / "policy")
    told = [
        out["surprise"].item()
        for feed, out in replay(runner, stored_steps(store, STEPS), seed=1)
        if not feed["is_first"][0]
    ]
    limit = runner.card.surprise_limit
    assert limit >= LEAST_NATS
    assert np.quantile(told, 0.99) < limit < 10 * max(LEAST_NATS, np.max(told))


def test_without_experience_a_policy_states_no_limit(robot):
    runner = PolicyRunner.load(robot / "policy")
    assert surprise_limit(runner, []) is None


def test_stored_steps_come_in_order_with_the_action_before_them(tagged):
    tagged.fill(3, count=200, episode=50)  # 600 steps
    store = tagged.open()
    steps = list(stored_steps(store, 400))
    numbers = [int(step.obs["proprio"][0]) for step in steps]
    assert len(steps) == 400
    assert numbers[0] == 0
    assert numbers[-1] > 400  # spread over the store
    for before, (number, step) in zip(
        [-2, *numbers], zip(numbers, steps, strict=True), strict=False
    ):
        begins = number != before + 1 or number % 50 == 0
        assert step.is_first == begins
        sent = 0.0 if begins else np.float32(before / 65536)
        assert step.prev_action[0] == sent


def test_an_empty_store_is_said(tmp_path):
    Ledger(tmp_path / LEDGER_NAME).close()
    store = Store(tmp_path, cache_bytes=10**6)
    with pytest.raises(SettingsError, match="expected stored steps to replay"):
        next(stored_steps(store, 10))
    store.close()


def test_a_replayed_policy_answers_as_an_engine_does(robot, store):
    runner = PolicyRunner.load(robot / "policy")
    steps = list(stored_steps(store, 20))
    engine = PolicyEngine(runner, seed=0)
    for step, (_, out) in zip(steps, replay(runner, steps, seed=0), strict=True):
        told = engine.act(step.obs, step.prev_action, step.is_first)
        np.testing.assert_array_equal(told.action, out["action"][0])

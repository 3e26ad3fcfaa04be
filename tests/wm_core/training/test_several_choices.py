"""A run on a task that takes several choices at once: what it sends, records and plays."""

from __future__ import annotations

import itertools
import textwrap

import numpy as np
import pytest

from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec
from wm_core.format.chunk import decode_chunk

TASKS = '''
"""Tasks of levers; the reward says which positions were chosen."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Levers(gymnasium.Env):
    metadata = {"render_modes": [], "render_fps": 10, "action_noop": (1, 0, 0)}
    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.MultiDiscrete([3, 1, 2], start=[10, 7, 5])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        reward = 2.0 * (action[0] - 10) + action[2] - 5
        return self.observation_space.sample(), reward, False, self.t >= 8, {}


class Switches(Levers):
    metadata = {"render_modes": [], "render_fps": 10}
    action_space = spaces.MultiBinary(3)

    def step(self, action):
        assert self.action_space.contains(action), action
        self.t += 1
        reward = float(action @ (4, 2, 1))
        return self.observation_space.sample(), reward, False, self.t >= 8, {}


gymnasium.register("WmLevers-v0", Levers)
gymnasium.register("WmSwitches-v0", Switches)
'''

#: name -> the policy's action, and what a position of each choice counts in the reward
KINDS = {
    "Levers": (ActionSpec.several_choices((3, 2), noop=(1, 0)), (2, 1)),
    "Switches": (ActionSpec.several_choices((2, 2, 2)), (4, 2, 1)),
}


@pytest.fixture
def levers(tmp_path, monkeypatch):
    """The module of the tasks, which this process can import."""
    (tmp_path / "wm_levers.py").write_text(textwrap.dedent(TASKS))
    monkeypatch.syspath_prepend(tmp_path)
    return "wm_levers"


@pytest.mark.parametrize("kind", KINDS)
def test_every_reward_is_that_of_the_choices_recorded_before_it(kind, levers, tiny, tmp_path):
    action, counts = KINDS[kind]
    run, task = tmp_path / "run", f"{levers}:Wm{kind}-v0"
    more = ("--train.steps", "100", "--train.replay-ratio", "2", "--no-publish")
    assert main(["train", "--task", task, "--run", str(run), *tiny, *more]) == 0
    steps = []
    for chunk in sorted((run / "store").glob("*/*/*.mcap")):
        meta, some = decode_chunk(chunk.read_bytes())
        assert meta.spec.action == action
        steps += some
    assert len(steps) >= 100
    sent = np.stack([step.action for step in steps if not step.is_last])
    assert action.is_chosen(sent).all()
    assert len(np.unique(sent, axis=0)) == np.prod(action.sizes)
    for before, step in itertools.pairwise(steps):
        if not step.is_first:
            assert step.reward == action.to_physical(before.action) @ counts


@pytest.mark.slow
def test_what_it_publishes_plays_the_task_as_the_network_does(levers, tiny, tmp_path, capsys):
    run, task = tmp_path / "run", f"{levers}:WmLevers-v0"
    more = ("--train.steps", "200", "--train.replay-ratio", "8")
    assert main(["train", "--task", task, "--run", str(run), *tiny, *more]) == 0
    for how in ((), ("--checkpoint",), ("--random",)):
        assert main(["evaluate", "--run", str(run), "--episodes", "2", *how]) == 0
        assert "levers" in capsys.readouterr().out.lower()
    assert main(["tasks", task]) == 0
    assert "choice 1 of number 2" in capsys.readouterr().out

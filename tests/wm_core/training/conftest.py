"""A task that a few hundred updates can learn, in a module that a learner process can import."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.store.env_recorder import EnvRecorder
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.collect import Collector, RandomActor
from wm_core.training.evaluate import open_env

TOY = '''
"""A dot that the action moves; being in the middle pays."""

import gymnasium
import numpy as np
from gymnasium import spaces


class Dot(gymnasium.Env):
    metadata = {"render_fps": 10, "render_modes": []}
    action_space = spaces.Box(-2.0, 2.0, (1,), np.float32)
    observation_space = spaces.Dict({
        "image": spaces.Box(0, 255, (64, 64, 3), np.uint8),
        "place": spaces.Box(-1.0, 1.0, (1,), np.float32),
    })

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.x, self.t = self.np_random.uniform(-1, 1), 0
        return self._obs(), {}

    def step(self, action):
        self.x = float(np.clip(self.x + 0.1 * action[0], -1, 1))
        self.t += 1
        return self._obs(), 1.0 - abs(self.x), False, self.t >= 20, {}

    def _obs(self):
        image = np.zeros((64, 64, 3), np.uint8)
        column = int((self.x + 1) / 2 * 55)
        image[:, column : column + 8] = 255
        return {"image": image, "place": np.array([self.x], np.float32)}

    def expert_action(self):
        return np.array([np.clip(-10 * self.x, -2, 2)], np.float32)


gymnasium.register("WmDot-v0", Dot)
'''

#: what ``record_steps`` records: two numbers that no action changes
PLACE = Spec(
    images={}, vectors={"place": VectorSpec(size=2)}, action=ActionSpec(low=(-1.0,), high=(1.0,))
)

#: the smallest agent that has every part
TINY = (
    *("--world.encoder.kind", "k4s2", "--world.encoder.depth", "2", "--world.units", "16"),
    *("--world.gru.deter", "16", "--world.gru.hidden", "8", "--world.gru.blocks", "2"),
    *("--world.posterior.units", "8", "--world.net.units", "8", "--world.heads.bins", "41"),
    *("--world.categorical.groups", "4", "--world.categorical.classes", "4"),
    *("--world.lstm.deter", "16", "--world.lstm.hidden", "8", "--world.ssm.deter", "16"),
    *("--behavior.imag-starts", "8", "--behavior.imag-horizon", "4"),
    *("--optim.lr", "1e-3", "--optim.warmup", "10", "--optim.precision", "float32"),
    *("--replay.batch", "4", "--replay.length", "8", "--replay.latents", "5000"),
    *("--train.prefill", "64", "--train.replay-ratio", "16", "--train.eval-every", "0"),
    *("--train.log-every", "10", "--train.video-every", "0", "--train.publish-every", "50"),
    *("--threads", "1", "--device", "cpu", "--quiet"),
)


#: the same from Python, with 4 replayed steps for each one that arrives: an update in 8 steps
SMALL = {
    "world.encoder.kind": "k4s2",
    "world.encoder.depth": 2,
    "world.units": 16,
    "world.gru.deter": 16,
    "world.gru.hidden": 8,
    "world.gru.blocks": 2,
    "world.categorical.groups": 4,
    "world.categorical.classes": 4,
    "behavior.imag_starts": 8,
    "behavior.imag_horizon": 4,
    "optim.precision": "float32",
    "replay.batch": 4,
    "replay.length": 8,
    "train.replay_ratio": 4,
    "train.prefill": 0,
    "train.eval_every": 0,
    "train.video_every": 0,
    "publish": False,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    (folder / "wm_toy_dot.py").write_text(textwrap.dedent(TOY))
    return folder


@pytest.fixture
def toy(toy_folder, monkeypatch) -> str:
    """The name of the toy task, importable in this process."""
    monkeypatch.syspath_prepend(toy_folder)
    return "wm_toy_dot:WmDot-v0"


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    """Options of ``wm train`` for the smallest agent."""
    return TINY


@pytest.fixture
def small_settings() -> dict[str, Any]:
    """Settings of ``wm.train`` for the smallest agent, which collects nothing by itself."""
    return dict(SMALL)


@pytest.fixture
def robot(toy, tmp_path):
    """A robot at the toy task: each call takes 64 random steps into the store ``store``."""
    ledger = Ledger(tmp_path / "store" / LEDGER_NAME)
    adapter, spec = open_env(toy, seed=0)
    recorder = EnvRecorder(ledger.path.parent, ledger, robot="rover", task=toy, spec=spec)
    collector = Collector([adapter], [recorder], spec)
    actor = RandomActor(spec.action, np.random.default_rng(0))

    def act():
        collector.collect(actor, 64)
        collector.seal()

    yield act
    collector.close()
    ledger.close()


@pytest.fixture
def record_steps(tmp_path):
    """A function that records four episodes of 20 steps, whose action is always ``action``.

    ``reward`` gives that of a step by its number; ``interventions`` are numbers of steps.
    """

    def make(
        reward=lambda step: 0.0, *, terminal=False, name="bags", action=0.5, interventions=()
    ):
        root = tmp_path / name
        ledger, rng = Ledger(root / LEDGER_NAME), np.random.default_rng(0)
        recorder = EnvRecorder(root, ledger, robot="arm", task="", spec=PLACE)
        for step in range(80):
            at = step % 20
            recorder.add(
                Step(
                    obs={"place": rng.normal(size=2).astype(np.float32)},
                    action=np.array([action], np.float32),
                    reward=reward(step) if at else 0.0,
                    is_first=at == 0,
                    is_last=at == 19,
                    is_terminal=at == 19 and terminal,
                    is_intervention=step in interventions,
                )
            )
        recorder.seal()
        ledger.close()
        return root

    return make


@pytest.fixture(scope="session")
def train_toy(toy_folder, tmp_path_factory):
    """Train the smallest agent on the toy task, with more options; returns the run folder."""

    def train(*more: str) -> Path:
        run = tmp_path_factory.mktemp("trained") / "run"
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(toy_folder)
            args = ["--task", "wm_toy_dot:WmDot-v0", "--run", str(run), *TINY, *more]
            assert main(["train", *args]) == 0
        return run

    return train


@pytest.fixture
def start_wm(toy_folder):
    """Starts ``wm`` in a process of its own that can import the toy task."""
    root = Path(__file__).parents[3]
    path = os.pathsep.join([str(toy_folder), str(root), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    started: list[subprocess.Popen] = []

    def start(*args: str) -> subprocess.Popen:
        process = subprocess.Popen(
            [sys.executable, "-m", "wm_core.cli", *args],
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=300)

"""An actor in simulation feeds a trainer over the robots' protocol, and follows its policies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.wm_ros.tiny_policy import write_policy
from wm_core.contract.errors import SettingsError
from wm_core.library.actor_engines import joined_reports, play_actors
from wm_core.library.sim_actor import ACTOR_STATUS, SimActor, SimActorSettings, actors_of
from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.service import ServeSettings, Service
from wm_core.store.reader import Store

ROOT = Path(__file__).parents[3]
DEADLINE_S = 300.0

#: a task of the tiny policy's spec; episodes of 20 steps that pay 1 for each
TASK = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Lamp(gymnasium.Env):
    metadata = {
        "render_fps": 25,
        "render_modes": [],
        "action_names": ("forward", "turn"),
        "action_units": ("m/s", "rad/s"),
    }
    action_space = spaces.Box(np.float32([-0.5, -2.0]), np.float32([1.0, 2.0]))
    observation_space = spaces.Dict({"image": spaces.Box(0, 255, (32, 32, 3), np.uint8)})

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return {"image": np.full((32, 32, 3), 40, np.uint8)}, {}

    def step(self, action):
        self.t += 1
        image = np.full((32, 32, 3), 40 + self.t, np.uint8)
        return {"image": image}, 1.0, False, self.t >= 20, {}


gymnasium.register("WmLamp-v0", Lamp)
"""


@pytest.fixture
def lamp(tmp_path, monkeypatch) -> str:
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "wm_lamp.py").write_text(TASK)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(ROOT)]))
    return "wm_lamp:WmLamp-v0"


@pytest.fixture
def trainer(tmp_path):
    settings = ServeSettings(root=tmp_path / "trainer", port=0, min_free_bytes=0)
    with contextlib.closing(Service(settings).start()) as service:
        yield service


def publish(tmp_path, version, bias=0.0):
    folder = write_policy(tmp_path / f"made_{version}", version=version, bias=bias, spread=0.1)
    files = [(folder / name).read_bytes() for name in ("policy.onnx", "policy.golden.npz")]
    told = json.loads((folder / "policy.manifest.json").read_text())["weights_sha256"]
    repository = PolicyRepository(tmp_path / "trainer" / "policies")
    repository.publish(*files, version=version, weights_sha256=told)


def until(holds):
    """Wait; the deadline is for a hang alone."""
    end_s = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > end_s:
            pytest.fail(f"waited {DEADLINE_S} s for what never came")
        time.sleep(0.02)


def stored(trainer) -> Store:
    store = Store(trainer.application.store, cache_bytes=1 << 20)
    store.refresh()
    return store


def settings_of(trainer, task, folder, **more) -> SimActorSettings:
    defaults = {"robot": "sim", "prefill": 0, "quiet": True}
    return SimActorSettings(trainer=trainer.url, task=task, folder=folder, **defaults | more)


def test_every_step_arrives_and_a_new_policy_takes_over(lamp, trainer, tmp_path):
    publish(tmp_path, 0)
    reports, stop = [], threading.Event()
    settings = settings_of(trainer, lamp, tmp_path / "actor", envs=2, prefill=40, rate_hz=500)
    actor = SimActor(settings, stop, on_report=reports.append)
    ended = []

    def play():
        try:
            ended.append(actor.play())
        finally:
            ended.append(None)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        until(lambda: ended or (reports and reports[-1].steps >= 100))
        publish(tmp_path, 1, bias=0.5)
        until(lambda: ended or reports[-1].version == 1)
    finally:
        stop.set()
        thread.join(DEADLINE_S)
    end = ended[0]
    assert (end.phase, end.version, end.swaps, end.dropped, end.chunks_pending) == (
        "done", 1, 1, 0, 0,
    )  # fmt: skip
    assert end.last_return == 20.0
    with contextlib.closing(stored(trainer)) as store:
        assert (store.steps, store.skipped) == (end.steps, 0)
        rows = [store.read(s.rows(0, s.length)) for s in store.segments]
        versions = [set(r["policy_version"].tolist()) for r in rows]
        assert versions == [{-1, 0, 1}] * 2  # random, the first policy, the second
        assert sum(len(r) for r in rows) == end.steps
    assert json.loads((tmp_path / "actor" / ACTOR_STATUS).read_text())["steps"] == end.steps


def test_what_was_not_taken_waits_for_the_next_start(lamp, trainer, tmp_path, monkeypatch):
    monkeypatch.setattr("wm_core.library.sim_actor.DRAIN_S", 0.5)
    publish(tmp_path, 0)
    settings = settings_of(trainer, lamp, tmp_path / "actor", steps=100)
    first = SimActor(settings, threading.Event())
    until(first._client.latest)
    trainer.close()
    end = first.play()
    assert (end.steps, end.dropped) == (100, 0)
    assert end.chunks_pending > 0
    again = Service(ServeSettings(root=tmp_path / "trainer", port=0, min_free_bytes=0)).start()
    with contextlib.closing(again):
        more = SimActor(settings_of(again, lamp, tmp_path / "actor", steps=60), threading.Event())
        assert more.play().chunks_pending == 0
        with contextlib.closing(stored(again)) as store:
            assert store.steps == 160


def test_a_task_of_another_kind_is_refused_in_one_line(trainer, tmp_path):
    publish(tmp_path, 0)
    settings = settings_of(trainer, "CartPole-v1", tmp_path / "actor")
    with pytest.raises(SettingsError, match="there is no image"):
        play_actors(settings, threading.Event())


def test_actors_have_folders_and_draws_of_their_own():
    settings = SimActorSettings(
        trainer="http://127.0.0.1:1", task="seek", folder=Path("here"), actors=3, prefill=100
    )
    several = actors_of(settings)
    assert [str(s.folder) for s in several] == ["here/0000", "here/0001", "here/0002"]
    assert len({s.seed for s in several}) == 3
    assert {(s.actors, s.prefill) for s in several} == {(1, 34)}
    assert joined_reports([]).phase == "waiting"


WITHOUT_TORCH = """
import sys


class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ModuleNotFoundError("torch is not here", name="torch")


sys.meta_path.insert(0, NoTorch())
from wm_core.cli.main import main
if __name__ == "__main__":
    sys.exit(main())
"""


def wm(folder, *args) -> subprocess.Popen:
    """``wm`` in a process in which torch cannot be imported."""
    (folder / "without_torch.py").write_text(WITHOUT_TORCH)
    command = [sys.executable, str(folder / "without_torch.py"), *args]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_the_verb_needs_no_torch_and_ends_in_order(lamp, trainer, tmp_path):
    publish(tmp_path, 0)
    home = tmp_path / "actor"
    process = wm(
        tmp_path, "sim-actor", "--trainer", trainer.url, "--task", lamp, "--folder", str(home)
    )
    until(lambda: process.poll() is not None or reported(home) >= 100)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, (out, err)
    assert "done: step" in out
    with contextlib.closing(stored(trainer)) as store:
        assert store.steps == reported(home)


def reported(home) -> int:
    try:
        return json.loads((home / ACTOR_STATUS).read_text())["steps"]
    except (OSError, ValueError):
        return 0


@pytest.mark.slow
def test_an_actor_that_is_killed_is_started_anew(lamp, trainer, tmp_path):
    publish(tmp_path, 0)
    home = tmp_path / "actor"
    options = ("--actors", "2", "--rate-hz", "200", "--folder", str(home))
    process = wm(tmp_path, "sim-actor", "--trainer", trainer.url, "--task", lamp, *options)
    until(lambda: process.poll() is not None or reported(home / "0000") >= 50)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    seen = stored(trainer).steps
    until(lambda: process.poll() is not None or stored(trainer).steps >= seen + 1000)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, (out, err)
    assert "another one begins" in err
    with contextlib.closing(stored(trainer)) as store:
        assert store.skipped == 0


@pytest.mark.slow
def test_actors_play_on_a_ray_cluster(lamp, trainer, tmp_path):
    pytest.importorskip("ray", reason="ray is not built for this machine")
    publish(tmp_path, 0)
    settings = settings_of(trainer, lamp, tmp_path / "actor", steps=200, actors=2, engine="ray")
    end = play_actors(settings, threading.Event())
    assert (end.phase, end.steps, end.chunks_pending) == ("done", 400, 0)
    with contextlib.closing(stored(trainer)) as store:
        assert store.steps == 400


def test_whoever_watches_sees_an_actor_as_a_robot(lamp, trainer, tmp_path):
    publish(tmp_path, 3)
    stop = threading.Event()
    actor = SimActor(settings_of(trainer, lamp, tmp_path / "actor", rate_hz=100), stop)
    thread = threading.Thread(target=actor.play)
    with contextlib.closing(TrainerClient(trainer.url)) as client:

        def report():
            robots = json.loads(client.request("GET", "/v1/live").body)["robots"]
            return robots.get("sim", {}).get("report", {})

        thread.start()
        try:
            until(lambda: report().get("cameras") and report()["counters"]["chunks_acked"] > 0)
            seen = report()
        finally:
            stop.set()
            thread.join(DEADLINE_S)
    assert (seen["mode"], seen["policy"]) == ("acts", 3)
    assert seen["action_names"] == ["forward", "turn"]
    assert (seen["action_low"], seen["action_high"]) == ([-0.5, -2.0], [1.0, 2.0])
    assert -0.5 <= seen["action"][0] <= 1.0


def test_of_actors_with_one_name_one_tells_how_it_is_doing(trainer, lamp, tmp_path):
    several = actors_of(settings_of(trainer, lamp, tmp_path / "actor", actors=3))
    assert [one.live for one in several] == [True, False, False]
    assert not any(one.live for one in actors_of(several[1]))

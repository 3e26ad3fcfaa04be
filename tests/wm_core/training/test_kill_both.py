"""Learner and service are killed in the middle; the robot lives on and loses no chunk."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace

import numpy as np
import pytest

from wm_core.contract.step import Step
from wm_core.link.audit import audit
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.uploader import Uploader
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.collect import EnvAdapter
from wm_core.training.tasks import make_env, spec_of

pytestmark = pytest.mark.long


class Robot:
    """The robot's own spool and uploader, fed with random actions in the toy task."""

    def __init__(self, task: str, folder, url: str) -> None:
        self.rng = np.random.default_rng(0)
        env = make_env(task)
        spec = spec_of(env)
        self.adapter = EnvAdapter(env, spec, self.rng)
        settings = SpoolSettings(seal_steps=16)
        self.spool = Spool(folder, robot="rover", task=task, spec=spec, settings=settings)
        self.uploader = Uploader(folder, url=url, token=None)
        self.steps = 0

    def live(self, steps: int) -> None:
        for _ in range(steps):
            now, action = self.adapter.state, self.rng.uniform(-1, 1, 1).astype(np.float32)
            step = Step(now.obs, action, now.reward, now.is_first, now.is_last, now.is_terminal)
            self.steps += 1
            assert self.spool.put(replace(step, stamp_ns=self.steps * 100_000_000))
            if now.is_last:
                self.adapter.reset()
            else:
                self.adapter.step(action)
        assert self.spool.flush(60.0)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, what: str, timeout_s: float = 300.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def test_learner_and_service_killed_together_lose_no_chunk(toy, tiny, tmp_path, start_wm):
    run, port = tmp_path / "run", free_port()
    serve = ("serve", "--root", str(run), "--port", str(port))
    train = ("train", "--follow", "--task", toy, "--run", str(run), *tiny)
    service, learner = start_wm(*serve), start_wm(*train)
    robot, repository = (
        Robot(toy, tmp_path / "spool", f"http://127.0.0.1:{port}"),
        PolicyRepository(run / "policies"),
    )

    def published(version: int) -> bool:
        last = repository.latest()
        return last is not None and last.version >= version

    def seen() -> int:
        return json.loads((run / "status.json").read_text())["agent_steps"]

    robot.live(200)
    wait_for(lambda: published(1), "the first trained policy")
    before, steps_before = repository.latest(), seen()
    robot.live(100)  # some of it is on its way now
    service.kill()
    learner.kill()
    service.wait(300)
    learner.wait(300)
    robot.live(100)  # and some of it waits
    start_wm(*serve)
    learner = start_wm(*train, "--resume")
    robot.live(400)
    wait_for(lambda: published(before.version + 1), "a policy after the kill")
    robot.spool.close()
    assert robot.uploader.drain(120.0)
    robot.uploader.close()
    wait_for(lambda: seen() == robot.steps, "the learner to see every step")
    assert steps_before <= robot.steps == 800
    assert repository.latest().learner_updates >= before.learner_updates + 50
    account = audit(run / "store", [tmp_path / "spool"])
    assert (account.chunks_lost, account.chunks_pending) == (0, 0)
    assert account.chunks_sent == account.chunks_acked >= 50
    assert account.steps_stored == robot.steps

"""Kills the learner again and again, in the middle of checkpoints too, while a robot streams.

``python -m benchmarks.chaos.learner_kills --kills 200``
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import time
from pathlib import Path

import tyro
from pydantic import BaseModel, Field

from benchmarks.chaos.account import Account, check_acknowledged, check_store
from benchmarks.chaos.steps import SPEC
from benchmarks.chaos.world import World, wait_until
from wm_core.contract.errors import StoreError
from wm_core.contract.policy_folder import LATEST_NAME

#: the smallest agent that has every part, and a checkpoint whenever it may
TINY = (
    *("--world.encoder.kind", "k4s2", "--world.encoder.depth", "2", "--world.units", "16"),
    *("--world.gru.deter", "16", "--world.gru.hidden", "8", "--world.gru.blocks", "2"),
    *("--world.posterior.units", "8", "--world.net.units", "8", "--world.heads.bins", "41"),
    *("--world.categorical.groups", "4", "--world.categorical.classes", "4"),
    *("--behavior.imag-starts", "4", "--behavior.imag-horizon", "2"),
    *("--optim.precision", "float32", "--replay.batch", "2", "--replay.length", "4"),
    *("--replay.latents", "2000", "--train.prefill", "64", "--train.replay-ratio", "4"),
    *("--train.log-every", "10", "--train.video-every", "0", "--train.publish-every", "50"),
    *("--train.checkpoint-every-s", "0.1", "--threads", "1", "--device", "cpu", "--quiet"),
)

#: when it is killed, in turn
MOMENTS = ("in a checkpoint", "after a checkpoint", "in a checkpoint", "starting")


class LearnerKills(BaseModel):
    """Kill the learner with SIGKILL, again and again, and compare what it goes on from."""

    root: Path = Path("runs/learner_kills")  #: folder for all of it; it must not exist yet
    kills: int = 200
    seed: int = 0


class LearnerReport(BaseModel):
    """What the kills did and what was found."""

    kills: int = 0
    in_checkpoint: int = 0  #: kills that left a checkpoint half written
    resumed_equal: int = 0  #: starts whose weights were those of the newest whole checkpoint
    resumed_before_first: int = 0  #: starts that found no checkpoint yet
    updates: int = 0  #: of the newest checkpoint in the end
    updates_repeated: int = 0  #: done after a checkpoint, lost by a kill, and done again
    policies: int = 0  #: version that was published last
    acknowledged: int = 0  #: chunks of the robot
    steps_stored: int = 0
    steps_seen: int = 0  #: by the learner in the end
    took_s: float = 0.0
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    faults: list[str] = Field(default_factory=list)

    @property
    def passed(self) -> bool:
        return not self.faults


class _Learner:
    """The learner's process, and what it said it had done."""

    def __init__(self, world: World, report: LearnerReport) -> None:
        self._world, self._report, self.run = world, report, world.run
        self.witness = world.state / "witness"
        self.spec = world.state / "spec.json"
        self.spec.write_text(SPEC.model_dump_json())
        self._highest = {"agent_steps": 0, "published_version": -1, "learner_updates": 0}
        self._updates = 0

    def start(self) -> None:
        """Start it, to go on where it can; wait until it says with which weights."""
        resume = ("--resume",) if self.checkpoints() else ("--spec", str(self.spec), *TINY)
        before = self._lines()
        self._world.start(
            "learner",
            "benchmarks.chaos.learner",
            *(str(self.witness), "train", "--follow", "--run", str(self.run), *resume),
        )

        def told() -> bool:
            self._world.check_alive()
            return len(self._lines()) > len(before)

        wait_until(told, "the learner to start")

    def _lines(self) -> list[str]:
        return self.witness.read_text().splitlines() if self.witness.exists() else []

    def checkpoints(self) -> list[Path]:
        """List the whole checkpoints."""
        return sorted((self.run / "checkpoints").glob("*.pt"))

    def unfinished(self) -> list[Path]:
        """List the checkpoints that are being written, or were when the learner died."""
        return list((self.run / "checkpoints").glob("*.tmp"))

    def check_resumed(self) -> None:
        """Compare what the last start went on from with the newest whole checkpoint.

        Called while the learner is dead: then nothing changes, and ``self.expected`` is kept for
        the next start.
        """
        from benchmarks.chaos.learner import digest
        from wm_core.training import checkpoint

        with contextlib.suppress(StoreError):
            _, state = checkpoint.newest(self.run)
            self.expected = (state["learner"]["updates"], digest(state["learner"]["agent"]))
            self._rises("checkpoint's steps", state["agent_steps"])
            self._rises("checkpoint's updates", state["learner"]["updates"])
            return
        self.expected = None

    def compare(self) -> None:
        """Compare the newest line of the witness with what the last checkpoint holds."""
        got = json.loads(self._lines()[-1])
        if self.expected is None:
            self._report.resumed_before_first += 1
        elif (got["updates"], got["agent"]) == self.expected:
            self._report.resumed_equal += 1
        else:
            self._report.faults.append(f"expected weights {self.expected}, it began with {got}")

    def look(self) -> None:
        """Read every counter that the learner shows; none may ever fall."""
        with contextlib.suppress(OSError, ValueError):
            said = json.loads((self.run / "status.json").read_bytes())
            self._rises("agent_steps", said["agent_steps"])
            self._rises("published_version", said["published_version"])
            if said["updates"] < self._updates:
                self._report.updates_repeated += self._updates - said["updates"]
            self._updates = said["updates"]
        with contextlib.suppress(OSError, ValueError):
            latest = json.loads((self.run / "policies" / "main" / LATEST_NAME).read_bytes())
            self._rises("version of the policy", latest["version"])
            self._rises("updates of the policy", latest["learner_updates"])

    def _rises(self, name: str, value: int) -> None:
        if value < self._highest.get(name, value):
            self._report.faults.append(f"{name} fell from {self._highest[name]} to {value}")
        self._highest[name] = value


def run(settings: LearnerKills) -> LearnerReport:
    """Kill the learner as often as asked; what is found stands in the report."""
    rng, report, began_s = random.Random(settings.seed), LearnerReport(), time.monotonic()
    world = World(settings.root, None, 1, 0.0, rng)
    try:
        world.start_service()
        world.start_robot("rover0", pause_s=0.5)
        learner = _Learner(world, report)
        learner.expected = None
        learner.start()
        latest = world.run / "policies" / "main" / LATEST_NAME
        wait_until(latest.exists, "the first policy")  # exporting takes long; later ones come too
        for number in range(settings.kills):
            _kill(world, learner, rng, MOMENTS[number % len(MOMENTS)])
            report.kills += 1
            report.in_checkpoint += bool(learner.unfinished())
            learner.look()
            learner.check_resumed()
            learner.start()
            learner.compare()
            if number % 20 == 19:
                print(f"{number + 1} kills, {report.resumed_equal} equal", flush=True)
        _finish(world, learner, report)
    except Exception as error:
        report.faults.append(f"{type(error).__name__}: {error}")
        with contextlib.suppress(OSError):
            report.faults.append(world.tail("learner"))
    finally:
        world.close()
    report.took_s, report.load = round(time.monotonic() - began_s, 1), os.getloadavg()
    return report


def _kill(world: World, learner: _Learner, rng: random.Random, moment: str) -> None:
    """SIGKILL soon after the start, or after a new checkpoint, or while the next is written."""
    if moment == "starting":
        time.sleep(rng.uniform(0.0, 2.0))
        world.kill("learner")
        return
    before = learner.checkpoints()[-1:]

    def moved() -> bool:
        world.check_alive()
        learner.look()
        return learner.checkpoints()[-1:] != before

    wait_until(moved, "a new checkpoint")
    if moment == "in a checkpoint":
        deadline_s = time.monotonic() + 20.0
        while not learner.unfinished() and time.monotonic() < deadline_s:
            time.sleep(0.0003)
    else:
        time.sleep(rng.uniform(0.0, 0.3))
    world.kill("learner")


def _finish(world: World, learner: _Learner, report: LearnerReport) -> None:
    """End the robot; the learner has to see every step that was acknowledged."""
    world.end("rover0")
    account = Account()
    acks = sorted(set(world.proxy.acks.since(0)))
    check_acknowledged(world.store, acks, account)
    check_store(world.store, account)

    def seen() -> bool:
        world.check_alive({"rover0"})
        learner.look()
        said = json.loads((learner.run / "status.json").read_bytes())
        report.steps_seen = said["agent_steps"]
        return report.steps_seen >= account.steps_stored

    wait_until(seen, "the learner to see every step")
    world.end("learner")
    world.end("service")
    learner.check_resumed()
    report.updates = learner.expected[0] if learner.expected else 0
    report.policies = learner._highest["published_version"]
    report.acknowledged, report.steps_stored = len(acks), account.steps_stored
    report.faults += account.faults
    if report.steps_seen != account.steps_stored:
        report.faults.append(f"saw {report.steps_seen} steps of {account.steps_stored}")


if __name__ == "__main__":
    chosen = tyro.cli(LearnerKills, prog="python -m benchmarks.chaos.learner_kills")
    found = run(chosen)
    (chosen.root / "report.json").write_text(found.model_dump_json(indent=1))
    print(found.model_dump_json(indent=1))
    sys.exit(not found.passed)

"""Run the demo from its first process to its report.

Order matters: baselines are measured before the robot moves, so that no evaluation steals a
tick's time; at the end the robot stops first, while the service still takes in its last chunks.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from contextlib import nullcontext, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live

from wm_core.contract.errors import SettingsError, WmError
from wm_core.contract.files import json_text, read_json, write_atomically
from wm_core.contract.policy_folder import LATEST_NAME
from wm_core.demo import page, report, screen
from wm_core.demo.processes import ProcessFailed, ProcessGroup
from wm_core.demo.settings import DemoSettings
from wm_core.library.evaluate import evaluate
from wm_core.library.returns_so_far import BASELINES
from wm_core.library.show import show
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.provenance import commit
from wm_core.training.returns import Evaluation

LOGS = "logs"  #: folder of what the processes print
RESERVE_S = 30.0  #: kept for stopping, the last evaluation and the pictures
EVALUATION_SEED = 77_000  #: added to the seed, so that no evaluation repeats the training
LINE_EVERY_S = 15.0  #: where the output is no terminal
NODE_READY_S = 120.0
FIRST_POLICY_S = 240.0


class Demo:
    """One run of the demo: start everything, watch it, stop it and report.

    Args:
        settings: what to show, and for how long.
    """

    def __init__(self, settings: DemoSettings) -> None:
        if find_spec("rclpy") is None:
            raise SettingsError(
                "the demo needs ROS 2's Python library (rclpy): source a ROS 2 installation, or "
                "install the extra `ros` (x86_64)"
            )
        self._settings = settings
        self._console = Console(highlight=False)
        self._begin_s = time.monotonic()
        self._commit = commit() or "unknown"  # now: by the end, others may have gone on
        self._run = settings.run.resolve()
        self._last_line_s = -LINE_EVERY_S

    def run(self) -> int:
        """Do everything in order; Ctrl-C and a failure end in a report too."""
        # Set here, because a shell that starts the demo in the background has SIGINT ignored.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.default_int_handler)
        self._make_way()
        group = ProcessGroup(self._run / LOGS, _environment())
        ended, status, baselines = "in time", 0, None
        try:
            self._say("starting the service and the learner; measuring random and best returns")
            self._start_trainer(group)
            baselines = self._measure_baselines(group)
            self._say("starting the robot")
            self._start_robot(group)
            self._watch(group, baselines)
        except KeyboardInterrupt:
            ended, status = "interrupted", 130
            self._say("\ninterrupted: stopping everything in order")
        except ProcessFailed as error:
            ended, status = str(error).splitlines()[0], 1
            self._say(str(error))
        finally:
            self._stop(group)
        if status:
            self._say(f"ended early ({ended}): the report so far")
        if baselines is None:
            self._say("nothing to report yet: the robot had not started")
        else:
            self._report(ended, baselines)
        return status

    def _make_way(self) -> None:
        """Rename the folder of an earlier demo; refuse a folder that no demo made."""
        previous = self._run.with_name(f"{self._run.name}.previous")
        for folder in (self._run, previous):
            if folder.exists() and not (folder / LOGS).is_dir():
                raise SettingsError(
                    f"{folder}: expected the folder of a demo; choose another --run"
                )
        if self._run.exists():
            if previous.exists():
                shutil.rmtree(previous)
            self._run.rename(previous)
        (self._run / LOGS).mkdir(parents=True)

    def _start_trainer(self, group: ProcessGroup) -> None:
        s, wm = self._settings, [sys.executable, "-m", "wm_core.cli"]
        group.start("service", [*wm, "serve", "--root", str(self._run), "--port", "0", "--ui"])
        group.wait_for(self._run / "service.json", timeout_s=NODE_READY_S, what="the service")
        self._say(f"watch it at {read_json(self._run / 'service.json')['url']}/ui/")
        learner = [*wm, "train", "--run", str(self._run), "--follow", "--task", s.task]
        learner += ["--size", s.size, "--seed", str(s.seed), "--nice", str(s.learner_nice)]
        learner += ["--quiet", "--train.publish-every", str(s.publish_every)]
        learner += ["--train.eval-every", "0"]  # the cores are the robot's
        group.start("learner", [*learner, "--train.prefill", str(s.prefill)])

    def _start_robot(self, group: ProcessGroup) -> None:
        s, robot, namespace = self._settings, self._run / "robot", f"/demo_{os.getpid()}"
        group.start("sim", _node("sim_node", "sim", namespace, task=s.task, seed=s.seed))
        policy = _node(
            "policy_node",
            "policy",
            namespace,
            robot="demo",
            trainer_url=read_json(self._run / "service.json")["url"],
            state_dir=str(robot),
            spool_dir=str(self._run / "spool"),
            random_prefill=s.prefill,
            exploration="sample",
            frozen_s=0.0,  # rendered images are equal where the robot pushes against a wall
            seed=s.seed,
        )
        group.start("policy", policy)
        group.wait_for(robot / "status.json", timeout_s=NODE_READY_S, what="the policy node")

    def _stop(self, group: ProcessGroup) -> None:
        for name in ("policy", "sim", "learner", "service"):
            with suppress(KeyboardInterrupt):  # a second Ctrl-C must leave no process behind
                group.stop(name, timeout_s=30.0)
        group.close()

    def _measure_baselines(self, group: ProcessGroup) -> report.Baselines:
        random, best = self._evaluate(random=True), self._settings.best
        try:
            best = self._evaluate(expert=True).mean if best is None else best
        except SettingsError as error:
            raise SettingsError(f"{error}; set --best to the return that is perfect") from error
        report.write_baselines(self._run, self._settings.task, random, best)
        latest = self._run / "policies" / "main" / LATEST_NAME
        group.wait_for(latest, timeout_s=FIRST_POLICY_S, what="the untrained policy")
        found = report.Baselines(random, best, self._evaluate(policy=self._policy_folder(0)))
        levels = {
            "random": {"mean": random.mean, "low": random.bounds[0], "high": random.bounds[1]},
            "best": {"mean": best},
        }
        write_atomically(self._run / BASELINES, json_text(levels).encode())  # for the page
        return found

    def _evaluate(self, **who: Any) -> Evaluation:
        """Evaluate an actor; a policy is the exported file, the very bytes that the robot runs."""
        s = self._settings
        return evaluate(task=s.task, seed=s.seed + EVALUATION_SEED, episodes=s.episodes, **who)

    def _policy_folder(self, version: int) -> Path:
        """Find a version in the run folder, or in the robot's cache where it is pruned."""
        kept = PolicyRepository(self._run / "policies").folder(version)
        if kept.is_dir():
            return kept
        found = sorted((self._run / "robot").rglob(f"{version:08d}"))
        if not found:
            raise WmError(
                f"policy {version} is neither in the run folder nor in the robot's cache"
            )
        return found[-1]

    def _watch(self, group: ProcessGroup, baselines: report.Baselines) -> None:
        end_s = self._begin_s + self._settings.minutes * 60 - RESERVE_S
        live = Live(console=self._console, refresh_per_second=2, transient=True)
        with live if self._console.is_terminal else nullcontext():
            while time.monotonic() < end_s:
                group.check()
                now = self._snapshot(baselines)
                if self._console.is_terminal:
                    live.update(screen.table(now))
                elif now.elapsed_s - self._last_line_s >= LINE_EVERY_S:
                    self._last_line_s = now.elapsed_s
                    self._say(screen.line(now))
                time.sleep(0.5)

    def _snapshot(self, baselines: report.Baselines) -> screen.Snapshot:
        robot = read_json(self._run / "robot" / "status.json")
        learner = read_json(self._run / "status.json")
        last_ten = robot.get("returns", [])[-10:]
        version = robot.get("policy_version", -1)
        return screen.Snapshot(
            elapsed_s=time.monotonic() - self._begin_s,
            total_s=self._settings.minutes * 60,
            episodes=robot.get("episodes", 0),
            recent_return=sum(last_ten) / len(last_ten) if last_ten else None,
            random_return=baselines.random.mean,
            best_return=baselines.best,
            steps=robot.get("steps_streamed", 0),
            chunks_sealed=robot.get("chunks_sealed", 0),
            chunks_acked=robot.get("chunks_acked", 0),
            version_on_robot=version if version >= 0 else None,
            version_published=learner.get("published_version"),
            updates=learner.get("updates", 0),
            updates_per_s=learner.get("updates_per_s"),
            tick_p99_ms=robot.get("tick_p99_ms"),
            missed_ticks=robot.get("missed_ticks", 0),
        )

    def _report(self, ended: str, baselines: report.Baselines) -> None:
        self._say("evaluating the policy that the robot ran last")
        swaps = report.read_lines(self._run / "robot" / "swaps.jsonl")
        final, last = baselines.first, swaps[-1]["version"] if swaps else 0
        if swaps:
            final = self._evaluate(policy=self._policy_folder(last))
        pictures = self._imagine()
        figures = report.gather(
            self._run,
            task=self._settings.task,
            minutes=(time.monotonic() - self._begin_s) / 60,
            commit=self._commit,
            baselines=baselines,
            final=final,
        )
        figures["ended"] = ended
        (self._run / "report.json").write_text(json_text(figures, indent=2) + "\n")
        shown = self._settings.run
        commands = [
            f"wm show --run {shown}                      # imagined against real, again",
            f"wm evaluate --run {shown} --episodes 20    # the exported policy in the engine",
            f"wm train --run {shown} --follow --resume   # go on learning from what is stored",
            f"wm info {shown}/policies/main/{last:08d}",
            f"tensorboard --logdir {shown}/tb",
        ]
        data = report.report_data(self._run, pictures, commands)
        page.write(self._run / "report.html", figures, data)
        self._say(page.verdict(figures))
        self._say(f"report: {shown}/report.json, page: {shown}/report.html\nnext:")
        self._say("\n".join(f"  {line}" for line in commands))

    def _imagine(self) -> list[Path]:
        """Write pictures of imagined against real; none where there was too little to show."""
        try:
            pictures = show(self._run)
        except WmError as error:
            self._say(f"no pictures of imagined frames: {error}")
            return []
        return [pictures.movie, pictures.strip]

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


def _node(executable: str, name: str, namespace: str, **params: Any) -> list[str]:
    """Give the command line that starts a node as ``ros2 launch`` would."""
    argv = [sys.executable, "-m", f"wm_ros.{executable}", "--ros-args"]
    argv += ["-r", f"__node:={name}", "-r", f"__ns:={namespace}"]
    for key, value in params.items():
        shown = json_text(value) if isinstance(value, str) else str(value)
        argv += ["-p", f"{key}:={shown}"]
    return argv


def _environment() -> dict[str, str]:
    """Give the processes a private ROS domain, and rendering without a screen."""
    return dict(os.environ) | {
        "ROS_DOMAIN_ID": str(random.SystemRandom().randint(0, 101)),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "MUJOCO_GL": os.environ.get("MUJOCO_GL", "egl"),
        "LP_NUM_THREADS": "0",
        "PYTHONUNBUFFERED": "1",
    }

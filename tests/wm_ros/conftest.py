"""A real, tiny ONNX policy; nodes as processes, started with the arguments of ``ros2 launch``."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
import yaml

from tests.wm_ros.played_robot import PlayedRobot
from tests.wm_ros.tiny_policy import PERIOD_S as PERIOD_S
from tests.wm_ros.tiny_policy import choosing_spec, tiny_spec, write_policy
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.step import Step
from wm_core.format.chunk import decode_chunk

ROOT = Path(__file__).parents[2]
#: what an installed executable runs
START = "from wm_ros.start import {0}; raise SystemExit({0}())"
WAIT_S = 300.0  # bounds every wait for a process, so that only a hang can reach it


@pytest.fixture
def policy_at():
    """Writes a tiny policy: ``policy_at(folder, version=..., bias=...)``."""
    return write_policy


@pytest.fixture
def spec_of():
    """Builds the tiny policy's spec: ``spec_of(size, period_s, vectors, more)``."""
    return tiny_spec


@pytest.fixture
def choosing():
    """Builds the spec of a tiny policy that chooses: ``choosing(size, period_s)``."""
    return choosing_spec


@pytest.fixture
def runner(tmp_path: Path) -> PolicyRunner:
    """A tiny policy, loaded and proven."""
    return PolicyRunner.load(write_policy(tmp_path / "policy"))


# ------------------------------------------------------------------------------ real processes


def free_domain(domains: tuple[int, ...]) -> int:
    """One of ``domains`` in which no process on this machine takes part."""
    for domain in random.SystemRandom().sample(domains, len(domains)):
        ports = [7400 + 250 * domain + offset for offset in (0, 10, 11, 12, 13)]
        try:
            for port in ports:
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                    sock.bind(("127.0.0.1", port))
        except OSError:
            continue
        return domain
    raise RuntimeError("no free ROS domain")


class Processes:
    """Nodes as ``ros2 launch`` starts them, in a domain of their own."""

    def __init__(self, folder: Path, domain: int) -> None:
        self.folder, self.domain = folder, domain
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.env = {
            **os.environ,
            "ROS_DOMAIN_ID": str(domain),
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "ROS_LOG_DIR": str(folder / "log"),
            "ROS_HOME": str(folder / "ros_home"),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(Path(__file__).parent)]),
        }

    def start(
        self,
        executable: str,
        params: dict[str, object],
        *,
        python: str | Path = sys.executable,
        before: tuple[str, ...] | None = None,
        env: dict[str, str] | None = None,
        namespace: str = "/robot1",
        remaps: tuple[str, ...] = (),
    ) -> subprocess.Popen[bytes]:
        """Start a node; ``before`` replaces ``-m wm_ros.<executable>`` behind the interpreter."""
        name = executable.removesuffix("_node")
        key = (
            executable if namespace == "/robot1" else f"{executable}{namespace.replace('/', '_')}"
        )
        file = self.folder / f"{key}_params.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": params}}))
        argv = [str(python), *(before or ("-m", f"wm_ros.{executable}"))]
        argv += ["--ros-args", "--log-level", "info", "-r", f"__node:={name}"]
        argv += ["-r", f"__ns:={namespace}", "--params-file", str(file)]
        argv += [part for rule in remaps for part in ("-r", rule)]
        if key in self.running:
            self.running.pop(key).wait(timeout=WAIT_S)
        with self.log(key).open("ab") as stream:
            process = subprocess.Popen(
                argv, env=env or self.env, cwd=self.folder, stdout=stream, stderr=stream
            )
        self.running[key] = process
        return process

    def log(self, executable: str) -> Path:
        return self.folder / f"{executable}.log"

    def said(self, executable: str) -> str:
        return self.log(executable).read_text(errors="replace")

    def stop(self, executable: str, sent: signal.Signals = signal.SIGINT) -> int:
        process = self.running.pop(executable)
        process.send_signal(sent)
        try:
            code = process.wait(timeout=WAIT_S)
        finally:
            process.kill()
            process.wait()
        if code:
            sys.stderr.write(
                f"--- {executable} ended with {code}\n{self.said(executable)[-3000:]}\n"
            )
        return code

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
def processes(tmp_path: Path, ros_domains: tuple[int, ...]):
    """Starts nodes of this test's own domain and leaves none behind."""
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    found = Processes(tmp_path, free_domain(ros_domains))
    yield found
    said = {name: found.said(name) for name in list(found.running)}
    found.close()
    for name, text in said.items():
        sys.stderr.write(f"--- {name}\n{text[-3000:]}\n")


def steps_in(spool: Path) -> list[Step]:
    """Every step in the chunks of a spool, in order."""
    return [
        s for path in sorted(spool.rglob("*.mcap")) for s in decode_chunk(path.read_bytes())[1]
    ]


class Watcher:
    """A node of the test's own: collects messages and spins until something is true."""

    def __init__(self, domain: int) -> None:
        import rclpy
        from rclpy.context import Context
        from rclpy.executors import SingleThreadedExecutor

        self.context = Context()
        rclpy.init(context=self.context, domain_id=domain)
        with warnings.catch_warnings():  # a parser that rclpy imports uses a deprecated module
            warnings.simplefilter("ignore", DeprecationWarning)
            self.node = rclpy.create_node("watcher", namespace="/robot1", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)

    def listen(self, kind: type, topic: str, qos: object = 100) -> list[object]:
        """Collect the messages of ``topic`` in their order."""
        messages: list[object] = []
        self.node.create_subscription(kind, topic, messages.append, qos)
        return messages

    def until(self, ready, what: str) -> None:
        deadline = time.monotonic() + WAIT_S
        while not ready():
            assert time.monotonic() < deadline, f"waited {WAIT_S} s for {what}"
            self.executor.spin_once(timeout_sec=0.05)

    def call(self, kind: type, name: str, request: object):
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready, f"service {name}")
        future = client.call_async(request)
        self.until(future.done, f"answer of {name}")
        return future.result()

    def close(self) -> None:
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()


@pytest.fixture
def watcher(processes: Processes, monkeypatch: pytest.MonkeyPatch):
    """Listens in the domain of ``processes``."""
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    found = Watcher(processes.domain)
    yield found
    found.close()


@pytest.fixture
def played(watcher):
    """A robot that the test plays: camera, joints, and the people beside it."""
    return PlayedRobot(watcher)


@pytest.fixture
def report_of():
    """Reads a JSON report of a node; {} while there is none."""

    def read(path: Path) -> dict:
        return json.loads(path.read_text()) if path.exists() else {}

    return read


@pytest.fixture
def damaged():
    """Copies a policy folder and flips one byte of its model."""

    def copy(source: Path, target: Path) -> Path:
        part = target.with_name(f".{target.name}.tmp")
        shutil.copytree(source, part)
        data = bytearray((part / "policy.onnx").read_bytes())
        data[len(data) // 2] ^= 0xFF
        (part / "policy.onnx").write_bytes(bytes(data))
        os.replace(part, target)
        return target

    return copy

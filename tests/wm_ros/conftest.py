"""A real, tiny ONNX policy; nodes as processes, started with the arguments of ``ros2 launch``."""

from __future__ import annotations

import hashlib
import io
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

import numpy as np
import pytest
import yaml

from tests.wm_ros.played_robot import PlayedRobot
from wm_core.contract.card import CARD_KEY, Blob, CarryPair, Manifest, PolicyCard, TensorInfo
from wm_core.contract.image import to_network
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.format.chunk import decode_chunk

ROOT = Path(__file__).parents[2]
PERIOD_S = 0.04  # of the counting task
#: what an installed executable runs
START = "from wm_ros.start import {0}; raise SystemExit({0}())"
WAIT_S = 300.0  # bounds every wait for a process, so that only a hang can reach it


def tiny_spec(
    size: int = 32, period_s: float = PERIOD_S, vectors: int = 0, more: tuple[str, ...] = ()
) -> Spec:
    return Spec(
        images={name: ImageSpec(height=size, width=size) for name in ("image", *more)},
        vectors={"proprio": VectorSpec(size=vectors)} if vectors else {},
        action=ActionSpec(
            low=(-0.5, -2.0), high=(1.0, 2.0), names=("forward", "turn"), units=("m/s", "rad/s")
        ),
        period_s=period_s,
    )


def choosing_spec(size: int = 32, period_s: float = PERIOD_S) -> Spec:
    """That of the counting task with choices and of ``sim:seek_discrete``: 0 stops."""
    return Spec(
        images={"image": ImageSpec(height=size, width=size)},
        action=ActionSpec.choices(4, ("stop", "forward", "left", "right")),
        period_s=period_s,
    )


def _steering(h):
    return [
        h.make_node("Sub", ["prev_action", "slew"], ["down"]),
        h.make_node("Add", ["prev_action", "slew"], ["most"]),
        h.make_node("Max", ["wanted", "down"], ["above"]),
        h.make_node("Min", ["above", "most"], ["near"]),
        h.make_node("Clip", ["near", "least", "one"], ["action"]),
        h.make_node("Add", ["action", "one"], ["up"]),
        h.make_node("Mul", ["up", "half"], ["share"]),
        h.make_node("Mul", ["share", "span"], ["reach"]),
        h.make_node("Add", ["reach", "low"], ["command"]),
    ]


def _choosing(h):
    return [
        h.make_node("ArgMax", ["wanted"], ["best"], axis=1, keepdims=0),
        h.make_node("OneHot", ["best", "choices", "hot"], ["action"]),
        h.make_node("Cast", ["best"], ["index"], to=1),
        h.make_node("Reshape", ["index", "column"], ["command"]),
    ]


def _graph(
    spec: Spec,
    bias,
    spread: float,
    breaks_at: float | None = None,
    surprised: bool = False,
    products: int = 0,
):
    """Its carry counts steps since ``is_first``; its action is ``bias`` plus noise; no weights.

    Of choices it takes the largest.
    """
    onnx = pytest.importorskip("onnx")
    h, f32, size = onnx.helper, onnx.TensorProto.FLOAT, spec.action.size

    def constant(name: str, value) -> object:
        return onnx.numpy_helper.from_array(np.asarray(value, np.float32), name)

    low, high = (np.array(v, np.float32) for v in (spec.action.low, spec.action.high))
    constants = [
        constant("bias", np.full((1, size), bias)),
        constant("spread", spread),
        constant("breaks_at", 1e9 if breaks_at is None else breaks_at),
        constant("slew", spec.action.max_change),
        constant("half", 0.5),
        constant("one", 1.0),
        constant("least", -1.0),
        constant("low", low[None]),
        constant("span", (high - low)[None]),
        onnx.numpy_helper.from_array(np.array([1, 1], np.int64), "column"),
    ]
    nodes = [
        h.make_node("Cast", ["is_first"], ["first"], to=f32),
        h.make_node("Reshape", ["first", "column"], ["first_column"]),
        h.make_node("Sub", ["one", "first_column"], ["keep"]),
        h.make_node("Mul", ["memory", "keep"], ["kept"]),
        h.make_node("Cast", [next(iter(spec.inputs))], ["pixels"], to=f32),
        h.make_node("ReduceMean", ["pixels"], ["light"], keepdims=0),
        h.make_node("Mul", ["light", "zero"], ["no_light"]),
        h.make_node("Sub", ["breaks_at", "light"], ["below"]),
        h.make_node("Relu", ["below"], ["room"]),
        h.make_node("Div", ["no_light", "room"], ["dark"]),
        h.make_node("Add", ["dark", "one"], ["unit"]),
        h.make_node("Add", ["kept", "unit"], ["memory_next"]),
        h.make_node("Sub", ["noise_action", "half"], ["centred"]),
        h.make_node("Mul", ["centred", "spread"], ["wiggle"]),
        h.make_node("Mul", ["prev_action", "zero"], ["nothing"]),
        h.make_node("Add", ["bias", "wiggle"], ["some"]),
        h.make_node("Add", ["some", "nothing"], ["wanted"]),
    ]
    nodes += _choosing(h) if spec.action.discrete else _steering(h)
    constants += [
        onnx.numpy_helper.from_array(np.array(size, np.int64), "choices"),
        constant("hot", [0.0, 1.0]),
    ]
    constants.append(constant("zero", 0.0))
    if products:  # of zeros, which follow from what was sent and so at every step anew
        wide = np.array([1024, 1024], np.int64)
        constants.append(onnx.numpy_helper.from_array(wide, "wide"))
        work = [
            h.make_node("ReduceSum", ["nothing"], ["none"], keepdims=0),
            h.make_node("Expand", ["none", "wide"], ["product_0"]),
            *(
                h.make_node("MatMul", [f"product_{k}", f"product_{k}"], [f"product_{k + 1}"])
                for k in range(products)
            ),
            h.make_node("ReduceSum", [f"product_{products}"], ["worked"], keepdims=0),
            h.make_node("Add", ["none_yet", "worked"], ["some"]),
        ]
        at = next(i for i, node in enumerate(nodes) if [*node.output] == ["some"])
        nodes[at].output[0] = "none_yet"
        nodes[at + 1 : at + 1] = work
    inputs = [
        *(
            TensorInfo(name=name, dtype=str(kind.dtype), shape=(1, *kind.shape))
            for name, kind in spec.inputs.items()
        ),
        TensorInfo(name="memory", dtype="float32", shape=(1, 1)),
        TensorInfo(name="prev_action", dtype="float32", shape=(1, size)),
        TensorInfo(name="is_first", dtype="bool", shape=(1,)),
        TensorInfo(name="noise_action", dtype="float32", shape=(1, size)),
    ]
    for i, name in enumerate([*spec.inputs][1:]):
        nodes.insert(5, h.make_node("Identity", [name], [f"unused_{i}"]))
    outputs = [
        TensorInfo(name="action", dtype="float32", shape=(1, size)),
        TensorInfo(name="command", dtype="float32", shape=(1, spec.action.command_size)),
        TensorInfo(name="memory_next", dtype="float32", shape=(1, 1)),
    ]
    if surprised:  # by light
        nodes.append(h.make_node("Reshape", ["light", "row"], ["surprise"]))
        constants.append(onnx.numpy_helper.from_array(np.array([1], np.int64), "row"))
        outputs.append(TensorInfo(name="surprise", dtype="float32", shape=(1,)))
    types = {
        "uint8": onnx.TensorProto.UINT8,
        "uint16": onnx.TensorProto.UINT16,
        "float32": f32,
        "bool": onnx.TensorProto.BOOL,
    }

    def infos(tensors):
        return [h.make_tensor_value_info(t.name, types[t.dtype], t.shape) for t in tensors]

    graph = h.make_graph(nodes, "tiny", infos(inputs), infos(outputs), constants)
    model = h.make_model(graph, opset_imports=[h.make_opsetid("", 18)], ir_version=8)
    return onnx, model, tuple(inputs), tuple(outputs)


def _golden(model: bytes, spec: Spec, inputs, outputs, steps: int = 4) -> bytes:
    import onnxruntime

    rng, size = np.random.default_rng(0), spec.action.size
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays, feeds = {}, {}
    for name, image in spec.images.items():
        frame = rng.integers(1, 256, (80, 96, image.channels), dtype=image.dtype)
        arrays |= {f"frame/{name}": frame, f"seen/{name}": to_network(frame, image)}
        feeds[name] = rng.integers(1, 256, (steps, *image.shape), dtype=image.dtype)
    feeds |= {
        "prev_action": np.zeros((steps, size), np.float32),
        "is_first": np.arange(steps) % 2 == 0,
        "noise_action": rng.random((steps, size), dtype=np.float32),
    }
    for key, vector in spec.vectors.items():
        feeds[key] = rng.random((steps, vector.size), dtype=np.float32)
    memory, outs, names = np.zeros((1, 1), np.float32), [], [info.name for info in outputs]
    for t in range(steps):
        feed = {name: value[t][None] for name, value in feeds.items()} | {"memory": memory}
        outs.append(session.run(names, feed))
        memory = outs[-1][2]
    arrays |= {f"in/{name}": value for name, value in feeds.items()}
    for i, name in enumerate(names):
        arrays[f"out/{name}"] = np.concatenate([o[i] for o in outs])
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write_policy(
    folder: Path,
    *,
    version: int = 0,
    bias: float | list[float] = 0.0,
    spread: float = 0.0,
    learner_updates: int = 0,
    spec: Spec | None = None,
    task: str = "counting",
    breaks_at: float | None = None,
    golden_steps: int = 4,
    surprised: bool = False,
    products: int = 0,
) -> Path:
    """Write a policy folder whose action is ``bias`` (and noise of ``spread``); returns it.

    An image whose mean is ``breaks_at`` or brighter makes it answer NaN.  One that can be
    ``surprised`` is, by the mean of its image's pixels in nats.  ``products`` of large matrices
    make it slow.
    """
    spec = spec or tiny_spec()
    onnx, model, inputs, outputs = _graph(spec, bias, spread, breaks_at, surprised, products)
    golden = _golden(model.SerializeToString(), spec, inputs, outputs, golden_steps)
    weights = hashlib.sha256(f"{bias} {spread}".encode()).hexdigest()
    card = PolicyCard(
        preset="tiny",
        size="tiny",
        task=task,
        spec=spec,
        inputs=inputs,
        outputs=outputs,
        carry=(CarryPair(input="memory", output="memory_next"),),
        noise=("noise_action",),
        max_obs_age_s=0.5,
        version=version,
        learner_updates=learner_updates,
        weights_sha256=weights,
        golden_sha256=hashlib.sha256(golden).hexdigest(),
    )
    onnx.helper.set_model_props(model, {CARD_KEY: card.model_dump_json()})
    data = model.SerializeToString()

    def blob(name: str, content: bytes) -> Blob:
        return Blob(name=name, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))

    manifest = Manifest(
        version=version,
        policy=blob("policy.onnx", data),
        golden=blob("policy.golden.npz", golden),
        weights_sha256=weights,
        learner_updates=learner_updates,
    )
    part = folder.with_name(f".{folder.name}.tmp")
    part.mkdir(parents=True)
    (part / "policy.onnx").write_bytes(data)
    (part / "policy.golden.npz").write_bytes(golden)
    (part / "policy.manifest.json").write_text(manifest.model_dump_json())
    os.replace(part, folder)
    return folder


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
            return process.wait(timeout=WAIT_S)
        finally:
            process.kill()
            process.wait()

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

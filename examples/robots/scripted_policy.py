"""Writes a policy file for one of the three example robots by hand: no network, no training.

    python examples/robots/scripted_policy.py planar_arm /tmp/planar_arm_policy
    ros2 launch wm_ros sim_launch.py robot_file:=planar_arm policy_dir:=/tmp/planar_arm_policy

The graphs are ordinary control: turn to the red pillar, one step of a transposed Jacobian, a trot.
They show what a policy file is, and prove a robot's wiring before anything has been learnt.
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from wm_core.contract.card import CARD_KEY, CarryPair, Manifest, PolicyCard, TensorInfo, blob_of
from wm_core.contract.image import to_network
from wm_core.contract.spec import Spec
from wm_core.robot import RobotFile

HERE = Path(__file__).parent
TYPES = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
TYPES["bool"] = onnx.TensorProto.BOOL
GOLDEN_STEPS = 8


class Graph:
    """Collects the nodes of a graph; each call returns the name of its result."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def __call__(self, kind: str, *inputs: str, to: str = "", **attributes: object) -> str:
        """Add a node of this kind, such as ``Add``."""
        name = to or f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def number(self, value: object, dtype: type = np.float32) -> str:
        """Add a constant: a number or a list of any shape."""
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def part(self, vector: str, begin: int, end: int) -> str:
        """Take the elements ``begin`` .. ``end`` of a vector (1, n)."""
        bounds = [self.number([i], np.int64) for i in (begin, end, 1)]
        return self("Slice", vector, *bounds)


def red_seen(g: Graph, image: str, size: int) -> tuple[str, str]:
    """Find red in ``image`` (1, H, W, 3): how much, and where, from 1 at the left edge to -1."""
    pixels = g("Cast", image, to=f"{image}_pixels")
    g.nodes[-1].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    red, green, blue = (
        g("Slice", pixels, *(g.number([v], np.int64) for v in (i, i + 1, 3))) for i in range(3)
    )
    beyond = g("Sub", red, g("Max", green, blue))
    mask = g("Clip", g("Sub", beyond, g.number(60.0)), g.number(0.0), g.number(1.0))
    columns = g.number(np.linspace(1, -1, size).reshape(1, 1, size, 1))
    axes = g.number([1, 2], np.int64)
    total = g("Squeeze", g("ReduceSum", mask, axes, keepdims=0), g.number([1], np.int64))
    weighted = g("ReduceSum", g("Mul", mask, columns), axes, keepdims=0)
    weighted = g("Squeeze", weighted, g.number([1], np.int64))
    return total, g("Div", weighted, g("Add", total, g.number(1e-3)))


def diff_drive(g: Graph, spec: Spec) -> str:
    """Turn to the pillar and drive there: (1, 2) forward speed in m/s and turn rate in rad/s."""
    size = spec.images["front"].width
    ahead, where = red_seen(g, "front", size)
    behind, aside = red_seen(g, "rear", size)
    some = g.number(2.0)
    sees, hears = g("Greater", ahead, some), g("Greater", behind, some)
    # What is left in the rear image is right of the robot: the shorter way is over that side.
    over = g("Mul", g("Sign", g("Sub", g.number(0.0), aside)), g.number(3.0))
    # Where neither camera sees it, the robot goes on turning as it did.
    before = g("Reshape", g.part("prev_action", 1, 2), g.number([1], np.int64))
    on = g("Where", g("Less", before, g.number(0.0)), g.number([-3.0]), g.number([3.0]))
    search = g("Where", hears, over, on)
    turn = g("Where", sees, g("Mul", where, g.number(5.0)), search)
    slower = g("Sub", g.number(1.0), g("Abs", where))
    speed = g("Where", sees, g("Mul", slower, g.number(0.8)), g.number([0.0]))
    row = g.number([1, 1], np.int64)
    return g("Concat", g("Reshape", speed, row), g("Reshape", turn, row), axis=1)


def planar_arm(g: Graph, spec: Spec) -> str:
    """Bring the tip nearer to the goal: (1, 3) positions in rad."""
    links, gain = np.array([0.30, 0.25, 0.15], np.float32), 3.0
    joints, goal = g.part("proprio", 0, 3), g.part("proprio", 6, 8)
    angles = g("MatMul", joints, g.number(np.triu(np.ones((3, 3)))))  # of each link
    x, y = (g("Mul", g(kind, angles), g.number(links[None])) for kind in ("Cos", "Sin"))
    axis = g.number([1], np.int64)
    tip = g("Concat", g("ReduceSum", x, axis), g("ReduceSum", y, axis), axis=1)
    error = g("Sub", goal, tip)
    beyond = g.number(np.tril(np.ones((3, 3))))  # what each joint moves: the links after it
    along_x = g("Mul", g("MatMul", y, beyond), g("Neg", g.part(error, 0, 1)))
    along_y = g("Mul", g("MatMul", x, beyond), g.part(error, 1, 2))
    return g("Add", joints, g("Mul", g("Add", along_x, along_y), g.number(gain)))


def walker(g: Graph, spec: Spec) -> str:
    """Trot: (1, 8) positions in rad; the phase of the gait is the policy's memory."""
    swing, lift, step_hz = 0.3, 0.4, 1.2
    home = np.array([[0.6, -1.2] * 4], np.float32)
    hip = np.array([[1.0, 0.0] * 4], np.float32)
    offset = np.repeat([0.0, math.pi, math.pi, 0.0], 2).astype(np.float32)[None]
    step = g.number(2 * math.pi * step_hz * spec.period_s)
    g("Add", "kept", step, to="memory_next")
    own = g("Add", "kept", g.number(offset))
    swung = g("Mul", g("Cos", own), g.number(swing * hip))
    lifted = g("Mul", g("Relu", g("Neg", g("Sin", own))), g.number(lift * (1 - hip)))
    return g("Sub", g("Add", swung, g.number(home)), lifted)


SCRIPTS: dict[str, Callable[[Graph, Spec], str]] = {
    "diff_drive": diff_drive,
    "planar_arm": planar_arm,
    "walker": walker,
}


def build(name: str, spec: Spec) -> tuple[onnx.ModelProto, list[TensorInfo], list[TensorInfo]]:
    """Make the graph of a policy, and say what it reads and writes."""
    g, action = Graph(), spec.action
    first = g("Cast", "is_first", to="first")
    g.nodes[-1].attribute.append(helper.make_attribute("to", onnx.TensorProto.FLOAT))
    keep = g("Sub", g.number(1.0), g("Reshape", first, g.number([1, 1], np.int64)))
    g("Mul", "memory", keep, to="kept")
    wanted = SCRIPTS[name](g, spec)
    if not any("memory_next" in node.output for node in g.nodes):
        g("Add", "kept", g.number(1.0), to="memory_next")
    low, high = np.array([action.low], np.float32), np.array([action.high], np.float32)
    share = g("Div", g("Sub", wanted, g.number(low)), g.number(high - low))
    unit = g("Sub", g("Mul", share, g.number(2.0)), g.number(1.0))
    most = g.number(action.max_change)
    near = g("Min", g("Max", unit, g("Sub", "prev_action", most)), g("Add", "prev_action", most))
    g("Clip", near, g.number(-1.0), g.number(1.0), to="action")
    half = g("Mul", g("Add", "action", g.number(1.0)), g.number(0.5))
    g("Add", g("Mul", half, g.number(high - low)), g.number(low), to="command")

    size = action.size
    inputs = [
        TensorInfo(name=n, dtype="uint8", shape=(1, *i.shape)) for n, i in spec.images.items()
    ]
    inputs += [
        TensorInfo(name=n, dtype="float32", shape=(1, v.size)) for n, v in spec.vectors.items()
    ]
    inputs += [
        TensorInfo(name="memory", dtype="float32", shape=(1, 1)),
        TensorInfo(name="prev_action", dtype="float32", shape=(1, size)),
        TensorInfo(name="is_first", dtype="bool", shape=(1,)),
    ]
    outputs = [
        TensorInfo(name="action", dtype="float32", shape=(1, size)),
        TensorInfo(name="command", dtype="float32", shape=(1, size)),
        TensorInfo(name="memory_next", dtype="float32", shape=(1, 1)),
    ]
    infos = [
        [helper.make_tensor_value_info(t.name, TYPES[t.dtype], t.shape) for t in tensors]
        for tensors in (inputs, outputs)
    ]
    graph = helper.make_graph(g.nodes, name, *infos, g.constants)
    opsets = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8), inputs, outputs


def golden_of(model: bytes, spec: Spec, inputs: list[TensorInfo]) -> bytes:
    """Record what the graph answers, from which a robot sees that it answers the same."""
    rng = np.random.default_rng(0)
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    arrays: dict[str, np.ndarray] = {}
    feeds: dict[str, np.ndarray] = {}
    for name, image in spec.images.items():
        frame = rng.integers(0, 256, (image.height * 2, image.width * 2, 3), dtype=np.uint8)
        arrays |= {f"frame/{name}": frame, f"seen/{name}": to_network(frame, image)}
        feeds[name] = rng.integers(0, 256, (GOLDEN_STEPS, *image.shape), dtype=np.uint8)
    for name, vector in spec.vectors.items():
        feeds[name] = rng.uniform(-1, 1, (GOLDEN_STEPS, vector.size)).astype(np.float32)
    feeds["prev_action"] = np.zeros((GOLDEN_STEPS, spec.action.size), np.float32)
    feeds["is_first"] = np.arange(GOLDEN_STEPS) % 4 == 0
    names = ["action", "command", "memory_next"]
    memory, answers = np.zeros((1, 1), np.float32), []
    for t in range(GOLDEN_STEPS):
        answers.append(
            session.run(names, {n: v[t][None] for n, v in feeds.items()} | {"memory": memory})
        )
        memory = answers[-1][2]
    arrays |= {f"in/{name}": value for name, value in feeds.items()}
    arrays |= {f"out/{n}": np.concatenate([a[i] for a in answers]) for i, n in enumerate(names)}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def write(name: str, folder: Path, robot: Path | None = None) -> Path:
    """Write the policy folder of an example robot; ``robot`` is its file if it was changed."""
    spec = RobotFile.load(robot or HERE / f"{name}.yaml").spec()
    model, inputs, outputs = build(name, spec)
    golden = golden_of(model.SerializeToString(), spec, inputs)
    card = PolicyCard(
        preset="scripted",
        size="none",
        task=name,
        spec=spec,
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        carry=(CarryPair(input="memory", output="memory_next"),),
        max_obs_age_s=10 * spec.period_s,
        version=1,
        golden_sha256=hashlib.sha256(golden).hexdigest(),
    )
    helper.set_model_props(model, {CARD_KEY: card.model_dump_json(exclude_unset=True)})
    data = model.SerializeToString()
    manifest = Manifest(
        version=1,
        policy=blob_of("policy.onnx", data),
        golden=blob_of("policy.golden.npz", golden),
    )
    part = folder.with_name(f".{folder.name}.tmp")
    part.mkdir(parents=True)
    (part / "policy.onnx").write_bytes(data)
    (part / "policy.golden.npz").write_bytes(golden)
    (part / "policy.manifest.json").write_text(manifest.model_dump_json())
    os.replace(part, folder)
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in SCRIPTS:
        sys.exit(f"usage: scripted_policy.py {'|'.join(SCRIPTS)} FOLDER")
    print(f"wrote {write(sys.argv[1], Path(sys.argv[2]))}")

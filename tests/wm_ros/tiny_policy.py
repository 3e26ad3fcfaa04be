"""Writes a real, tiny ONNX policy, with its golden rollout and manifest."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path

import numpy as np
import pytest

from wm_core.contract.card import CARD_KEY, Blob, CarryPair, Manifest, PolicyCard, TensorInfo
from wm_core.contract.image import to_network
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec

PERIOD_S = 0.04  #: of the counting task


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


def _choosing(h, spec):
    if spec.action.groups:
        numbers = range(len(spec.action.groups))
        parts = [
            h.make_node("Split", ["wanted", "parts"], [f"wanted_{i}" for i in numbers], axis=1)
        ]
        for i in numbers:
            parts += [
                h.make_node("ArgMax", [f"wanted_{i}"], [f"best_{i}"], axis=1, keepdims=0),
                h.make_node("OneHot", [f"best_{i}", f"choices_{i}", "hot"], [f"action_{i}"]),
                h.make_node("Cast", [f"best_{i}"], [f"index_{i}"], to=1),
                h.make_node("Reshape", [f"index_{i}", "column"], [f"command_{i}"]),
            ]
        return parts + [
            h.make_node("Concat", [f"{what}_{i}" for i in numbers], [what], axis=1)
            for what in ("action", "command")
        ]
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

    Of choices it takes the largest, of each.
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
    nodes += _choosing(h, spec) if spec.action.discrete else _steering(h)
    constants += [
        onnx.numpy_helper.from_array(np.array(spec.action.groups, np.int64), "parts"),
        *(
            onnx.numpy_helper.from_array(np.array(n, np.int64), f"choices_{i}")
            for i, n in enumerate(spec.action.groups)
        ),
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

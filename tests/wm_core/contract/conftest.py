"""A policy small enough to compute in the head: it counts its steps and leans on its noise.

wanted = 2 (noise_action - 0.5) + 0.1 count, moved at most 0.5 per step, commands 0 .. 4.
"""

import hashlib
import io

import numpy as np
import onnx
import pytest

from wm_core.contract.card import CARD_KEY, CarryPair, Manifest, PolicyCard, TensorInfo, blob_of
from wm_core.contract.image import to_network
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec

GRAPH = """
<ir_version: 8, opset_import: ["": 18]>
policy (uint8[1,4,4,1] image, float[1,2] proprio, float[1,1] count, float[1,1] prev_action,
        bool[1] is_first, float[1,1] noise_latent, float[1,1] noise_action)
    => (float[1,1] action, float[1,1] command, float[1,1] next_count, float[1] value,
        float[1] surprise)
<float one = {1.0}, float half = {0.5}, float two = {2.0}, float tenth = {0.1},
 float none = {0.0}, float low_end = {-1.0}, int64[1] flat = {1}>
{
    first = Cast<to = 1>(is_first)
    keep = Sub(one, first)
    kept = Mul(count, keep)
    felt = ReduceSum(proprio)
    nothing = Mul(felt, none)
    counted = Add(kept, nothing)
    next_count = Add(counted, one)
    centred = Sub(noise_action, half)
    drawn = Mul(centred, two)
    lean = Mul(next_count, tenth)
    wanted = Add(drawn, lean)
    down = Sub(prev_action, half)
    up = Add(prev_action, half)
    above = Max(wanted, down)
    near = Min(above, up)
    action = Clip(near, low_end, one)
    raised = Add(action, one)
    command = Mul(raised, two)
    value = Reshape(next_count, flat)
    surprise = Reshape(noise_latent, flat)
}
"""

SPEC = Spec(
    images={"image": ImageSpec(height=4, width=4, channels=1)},
    vectors={"proprio": VectorSpec(size=2)},
    action=ActionSpec(low=(0.0,), high=(4.0,), max_change=0.5),
    period_s=0.1,
)


def infos(values):
    names = {1: "float32", 2: "uint8", 9: "bool"}
    return tuple(
        TensorInfo(
            name=v.name,
            dtype=names[v.type.tensor_type.elem_type],
            shape=tuple(d.dim_value for d in v.type.tensor_type.shape.dim),
        )
        for v in values
    )


def make_card(proto, **changes):
    values = {
        "preset": "counter",
        "size": "none",
        "spec": SPEC,
        "inputs": infos(proto.graph.input),
        "outputs": infos(proto.graph.output),
        "carry": (CarryPair(input="count", output="next_count"),),
        "noise": ("noise_latent", "noise_action"),
        "max_obs_age_s": 0.2,
        "version": 3,
    }
    return PolicyCard(**(values | changes))


def make_model(card=None, graph=GRAPH, **changes):
    proto = onnx.parser.parse_model(graph)
    card = make_card(proto, **changes).model_dump_json() if card is None else card
    if card:
        proto.metadata_props.add(key=CARD_KEY, value=card)
    return proto.SerializeToString()


def make_golden(model, steps=12, **changes):
    runner = PolicyRunner.from_bytes(model)
    rng = np.random.default_rng(0)
    frame = rng.integers(0, 256, (9, 13, 1), dtype=np.uint8)
    arrays = {
        "frame/image": frame,
        "seen/image": to_network(frame, SPEC.images["image"]),
        "in/image": rng.integers(0, 256, (steps, 4, 4, 1), dtype=np.uint8),
        "in/proprio": rng.normal(size=(steps, 2)).astype(np.float32),
        "in/prev_action": rng.uniform(-1, 1, (steps, 1)).astype(np.float32),
        "in/is_first": np.arange(steps) % 5 == 0,
        "in/noise_latent": rng.random((steps, 1), np.float32),
        "in/noise_action": rng.random((steps, 1), np.float32),
    }
    carry, rows = runner.initial_carry(), []
    for t in range(steps):
        feed = {k[3:]: v[t : t + 1] for k, v in arrays.items() if k.startswith("in/")}
        rows.append(runner.call(feed | carry))
        carry = {"count": rows[-1]["next_count"]}
    arrays |= {f"out/{name}": np.concatenate([row[name] for row in rows]) for name in rows[0]}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **(arrays | changes))
    return buffer.getvalue()


def write_policy(folder, *, golden=None, model=None, **manifest):
    """A folder whose hashes all fit, around whatever card, model or rollout a test wants."""
    golden = make_golden(make_model()) if golden is None else golden
    told = hashlib.sha256(golden).hexdigest()
    model = make_model(golden_sha256=told) if model is None else model
    values = {
        "version": 3,
        "policy": blob_of("policy.onnx", model),
        "golden": blob_of("policy.golden.npz", golden),
    }
    folder.mkdir(exist_ok=True)
    (folder / "policy.onnx").write_bytes(model)
    (folder / "policy.golden.npz").write_bytes(golden)
    text = Manifest(**(values | manifest)).model_dump_json()
    (folder / "policy.manifest.json").write_text(text)
    return folder


@pytest.fixture
def model_of():
    return make_model


@pytest.fixture
def golden_of():
    return lambda **changes: make_golden(make_model(), **changes)


@pytest.fixture
def write():
    return write_policy


@pytest.fixture
def folder(tmp_path):
    return write_policy(tmp_path / "policy")


@pytest.fixture
def runner(folder):
    return PolicyRunner.load(folder)


@pytest.fixture
def graph():
    return GRAPH


@pytest.fixture
def picky_graph():
    """The graph, but it fails where the measurements add up to 1 or more."""
    pick = "row = Cast<to = 7>(felt)\n    zero = Gather(table, row)\n    nothing = Mul(zero, none)"
    graph = GRAPH.replace("nothing = Mul(felt, none)", pick)
    return graph.replace("int64[1] flat", "float[1] table = {0.0}, int64[1] flat")


@pytest.fixture
def golden_for():
    return make_golden

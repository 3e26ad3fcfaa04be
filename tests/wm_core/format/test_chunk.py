"""A chunk gives back what was put in, opens in ROS's tools, and refuses everything else."""

from __future__ import annotations

import dataclasses
import io
import json
import struct
import zlib
from collections import defaultdict
from uuid import uuid4

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from rosbags.typesys import Stores, get_typestore

from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused, SpecMismatch
from wm_core.contract.inputs import Depth
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import NUMBERS, Step
from wm_core.format import cdr, chunk
from wm_core.format.chunk import (
    MAX_STEPS,
    METADATA,
    ChunkKey,
    ChunkMeta,
    check_chunk,
    chunk_path,
    decode_chunk,
    encode_chunk,
    read_columns,
)
from wm_core.format.recording import write_recording

SPEC = Spec(
    images={
        "image": ImageSpec(height=8, width=12),
        "wrist": ImageSpec(height=4, width=4, channels=1),
        "range": Depth(height=4, width=6, far_mm=5000),
    },
    vectors={"proprio": VectorSpec(size=3, names=("hip", "knee", "ankle"))},
    action=ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0), names=("forward", "turn")),
)


def some_action(rng, spec):
    return rng.normal(size=spec.action.size).astype(np.float32)


def make_steps(count, rng, spec=SPEC):
    images = {k: [s.random(rng) for _ in range(count)] for k, s in spec.images.items()}
    vectors = {k: rng.normal(size=(count, s.size)) for k, s in spec.vectors.items()}
    return [
        Step(
            obs={k: v[i] for k, v in images.items()}
            | {k: v[i].astype(np.float32) for k, v in vectors.items()},
            action=rng.uniform(-1, 1, spec.action.size).astype(np.float32),
            reward=float(rng.normal()) if i else 0.0,
            is_first=i == 0,
            is_last=i == count - 1,
            is_terminal=bool(rng.integers(2)),
            is_intervention=bool(rng.integers(2)),
            is_valid=bool(rng.integers(2)),
            requested_action=rng.normal(size=spec.action.size).astype(np.float32)
            if i % 3
            else None,
            policy_version=int(rng.integers(-1, 100)),
            stamp_ns=1_700_000_000_000_000_000 + i * 50_000_001,
            period_s=float(rng.integers(2)) / 8,
        )
        for i in range(count)
    ]


def make_meta(count, spec=SPEC, **fields):
    known = {"robot": "r2-d2", "session": uuid4().hex, "seq": 3, "task": "seek", "first_step": 7}
    return ChunkMeta(**(known | {"spec": spec, "steps": count, "dropped": {"queue": 2}} | fields))


def make_chunk(count=5, seed=0):
    meta = make_meta(count)
    return encode_chunk(make_steps(count, np.random.default_rng(seed)), meta), meta


def assert_same_step(got, want):
    for field in dataclasses.fields(Step):
        a, b = getattr(got, field.name), getattr(want, field.name)
        if field.name == "obs":
            assert a.keys() == b.keys()
            for key in a:
                assert a[key].dtype == b[key].dtype
                np.testing.assert_array_equal(a[key], b[key])
        elif isinstance(b, np.ndarray):
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_array_equal(a, b)
        else:
            assert type(a) is type(b)
            assert a == b, field.name


@pytest.mark.parametrize("count", [1, 15, 16, 17, 64])
def test_decoded_steps_equal_what_was_encoded(count):
    steps = make_steps(count, np.random.default_rng(count))
    meta = make_meta(count)
    got_meta, got = decode_chunk(encode_chunk(steps, meta))
    assert got_meta == meta
    assert len(got) == count
    for a, b in zip(got, steps, strict=True):
        assert_same_step(a, b)


def test_choices_go_through_unchanged():
    choices = ActionSpec.choices(4, ("stop", "forward", "left", "right"))
    spec = SPEC.model_copy(update={"action": choices})
    rng = np.random.default_rng(0)
    steps = [
        dataclasses.replace(s, action=choices.random(rng), requested_action=choices.random(rng))
        for s in make_steps(9, rng, spec)
    ]
    meta, got = decode_chunk(encode_chunk(steps, make_meta(9, spec)))
    assert meta.spec == spec
    for step, back in zip(steps, got, strict=True):
        assert_same_step(back, step)


def test_nan_and_infinity_survive_so_that_a_bad_step_can_be_looked_at():
    [step] = make_steps(1, np.random.default_rng(0))
    step.obs["proprio"][:] = (np.nan, np.inf, -np.inf)
    step = dataclasses.replace(step, reward=float("nan"), is_valid=False)
    _, [got] = decode_chunk(encode_chunk([step], make_meta(1)))
    np.testing.assert_array_equal(got.obs["proprio"], step.obs["proprio"])
    assert np.isnan(got.reward)


def test_log_time_grows_when_stamps_do_not():
    steps = [
        dataclasses.replace(step, stamp_ns=stamp)
        for step, stamp in zip(
            make_steps(4, np.random.default_rng(0)), (50, 50, 20, 60), strict=True
        )
    ]
    data = encode_chunk(steps, make_meta(4))
    assert [step.stamp_ns for step in decode_chunk(data)[1]] == [50, 50, 20, 60]
    messages = make_reader(io.BytesIO(data)).iter_messages(topics=["/step"])
    assert [message.log_time for _, _, message in messages] == [50, 51, 52, 60]


def test_columns_find_the_images_in_their_blocks():
    steps = make_steps(20, np.random.default_rng(0))
    columns = read_columns(encode_chunk(steps, make_meta(20)))
    assert columns.image_block["image"].tolist() == [0] * 16 + [1] * 4
    for i, step in enumerate(steps):
        np.testing.assert_array_equal(columns.image("wrist", i), step.obs["wrist"])


def test_the_mcap_library_reads_a_chunk_with_its_index():
    data, _ = make_chunk(20)
    reader = make_reader(io.BytesIO(data), validate_crcs=True)
    assert reader.get_header().profile == "ros2"
    summary = reader.get_summary()
    assert {c.topic for c in summary.channels.values()} == {
        "/image", "/wrist", "/range", "/proprio", "/action", "/step"
    }  # fmt: skip
    assert {(s.name, s.encoding) for s in summary.schemas.values()} == {
        (cdr.IMAGE, "ros2msg"),
        (cdr.JOINT_STATE, "ros2msg"),
    }
    assert summary.statistics.message_count == 120
    assert summary.statistics.chunk_count == 2
    assert len(list(reader.iter_messages(topics=["/action"]))) == 20


def test_another_cdr_library_reads_every_message_and_writes_the_same_bytes():
    data, _ = make_chunk(3)
    types = get_typestore(Stores.ROS2_JAZZY)
    for schema, _, message in make_reader(io.BytesIO(data)).iter_messages():
        decoded = types.deserialize_cdr(message.data, schema.name)
        assert bytes(types.serialize_cdr(decoded, schema.name)) == message.data


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # rosidl's parser
def test_rclpy_decodes_our_messages():
    serialization = pytest.importorskip("rclpy.serialization")
    messages = pytest.importorskip("sensor_msgs.msg")
    steps = make_steps(3, np.random.default_rng(0))
    data = encode_chunk(steps, make_meta(3))
    seen = defaultdict(list)
    for schema, channel, message in make_reader(io.BytesIO(data)).iter_messages():
        kind = messages.Image if schema.name == cdr.IMAGE else messages.JointState
        seen[channel.topic].append(serialization.deserialize_message(message.data, kind))
    for i, step in enumerate(steps):
        image, action = seen["/image"][i], seen["/action"][i]
        stamp = image.header.stamp
        assert stamp.sec * 10**9 + stamp.nanosec == step.stamp_ns
        assert (image.height, image.width, image.encoding, image.step) == (8, 12, "rgb8", 36)
        assert bytes(image.data) == step.obs["image"].tobytes()
        assert seen["/wrist"][i].encoding == "mono8"
        depth = seen["/range"][i]
        assert (depth.encoding, depth.step, depth.is_bigendian) == ("16UC1", 12, 0)
        pixels = np.frombuffer(bytes(depth.data), "<u2").reshape(4, 6, 1)
        np.testing.assert_array_equal(pixels, step.obs["range"])
        assert list(action.name) == ["forward", "turn"]
        np.testing.assert_array_equal(np.float32(action.position), step.action)
        assert len(action.effort) == (2 if i % 3 else 0)
        fields = dict(zip(seen["/step"][i].name, seen["/step"][i].position, strict=True))
        assert fields["reward"] == step.reward
        assert fields["policy_version"] == step.policy_version


def test_frames_of_a_simulator_cost_a_small_part_of_their_size():
    spec = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
    ramp = np.linspace(40, 200, 64, dtype=np.uint8)[:, None, None]
    frame = np.broadcast_to(ramp, (64, 64, 3)).copy()
    steps = []
    for i, step in enumerate(make_steps(64, np.random.default_rng(0), spec)):
        image = frame.copy()
        image[20:30, i % 50 : i % 50 + 10] = (200, 30, 30)
        steps.append(dataclasses.replace(step, obs={"image": image}))
    assert len(encode_chunk(steps, make_meta(64, spec))) / 64 < 1500


# ---- what is refused -------------------------------------------------------------------------

GOOD, GOOD_META = make_chunk()


@given(st.integers(0, len(GOOD) - 1))
@settings(max_examples=200, deadline=None)
def test_a_truncated_chunk_is_refused(size):
    with pytest.raises(ChunkRefused):
        decode_chunk(GOOD[:size])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_one_changed_byte_is_noticed(at, change):
    data = bytearray(GOOD)
    data[at] ^= change
    with pytest.raises(ChunkRefused):
        decode_chunk(bytes(data))


@given(st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_random_bytes_are_refused(data):
    with pytest.raises(ChunkRefused):
        decode_chunk(data)
    with pytest.raises(ChunkRefused):
        decode_chunk(GOOD[:8] + data + GOOD[-8:])


def remake(**changed):
    """A chunk with right checksums whose metadata says something else than its messages."""
    fields = json.loads(GOOD_META.model_dump_json()) | changed
    honest = encode_chunk(make_steps(5, np.random.default_rng(0)), make_meta(5))
    messages, seen = [], {}
    for _, channel, message in make_reader(io.BytesIO(honest)).iter_messages():
        seen.setdefault(message.log_time, {})[channel.topic] = message.data
    topics = make_meta(1).topics
    messages = [(t, [by_topic[topic.name] for topic in topics]) for t, by_topic in seen.items()]
    return write_recording(
        topics, messages, metadata={METADATA: {"meta": json.dumps(fields)}}, steps_per_block=16
    )


def test_the_forger_of_these_tests_makes_good_chunks_when_it_changes_nothing():
    assert decode_chunk(remake())[0] == GOOD_META


def test_another_version_is_refused_as_such():
    with pytest.raises(ChunkVersionRefused, match="version 1 or 2, got 3"):
        decode_chunk(remake(version=3))


@pytest.mark.parametrize(
    "changed",
    [
        {"steps": 4},
        {"steps": 6},
        {"steps": 0},
        {"steps": MAX_STEPS + 1},
        {"steps": 10**18},
        {"first_step": -1},
        {"robot": "../../etc"},
        {"robot": "A"},
        {"session": "x"},
        {"seq": -1},
        {"unknown": 1},
        {"dropped": {"queue": "many"}},
    ],
)
def test_a_meta_that_does_not_fit_is_refused(changed):
    with pytest.raises(ChunkRefused):
        decode_chunk(remake(**changed))


@pytest.mark.parametrize(
    "spec",
    [
        SPEC.model_copy(update={"images": {"image": ImageSpec(height=8, width=12)}}),
        SPEC.model_copy(update={"images": SPEC.images | {"image": ImageSpec(height=12, width=8)}}),
        SPEC.model_copy(update={"vectors": {"proprio": VectorSpec(size=4)}}),
        SPEC.model_copy(update={"action": ActionSpec(low=(0.0,), high=(1.0,))}),
    ],
)
def test_messages_that_do_not_fit_the_spec_are_refused(spec):
    with pytest.raises(ChunkRefused):
        decode_chunk(remake(spec=json.loads(spec.model_dump_json())))


def test_a_spec_of_absurd_size_is_refused_before_memory_is_taken():
    spec = json.loads(SPEC.model_dump_json())
    spec["images"]["image"] |= {"height": 8192, "width": 8192}
    with pytest.raises(ChunkRefused, match="more than"):
        decode_chunk(remake(spec=spec))
    spec["images"]["image"]["height"] = 10**9
    with pytest.raises(ChunkRefused, match="less than or equal to 8192"):
        decode_chunk(remake(spec=spec))


def test_a_block_that_unpacks_to_more_than_its_steps_need_is_refused_unread():
    bomb = np.zeros((2000, 2000, 3), np.uint8)
    message = cdr.encode_image(bomb, ImageSpec(height=2000, width=2000), 1, "image")
    topics = GOOD_META.topics
    data = write_recording(
        topics,
        [(1, [message] * len(topics))],
        metadata={METADATA: {"meta": GOOD_META.model_dump_json()}},
        steps_per_block=16,
    )
    assert len(data) < 100_000
    with pytest.raises(ChunkRefused, match="unpacks to"):
        decode_chunk(data)


def test_a_zstd_frame_that_states_a_wrong_size_is_refused():
    packed = zstandard.compress(bytes(10_000_000))
    body = struct.pack("<QQQII", 0, 0, 100, 0, 4) + b"zstd"
    body += struct.pack("<Q", len(packed)) + packed
    head = GOOD[:8] + record(1, lp("ros2") + lp(""))
    text = lp("meta") + lp(GOOD_META.model_dump_json())
    head += record(12, lp(METADATA) + struct.pack("<I", len(text)) + text)
    front = head + record(6, body)
    front += record(15, struct.pack("<I", zlib.crc32(front)))
    footer = struct.pack("<BQQQ", 2, 20, len(front), 0)
    data = front + footer + struct.pack("<I", zlib.crc32(footer)) + GOOD[:8]
    with pytest.raises(ChunkRefused, match="block states 100 bytes"):
        decode_chunk(data)


def record(opcode, body):
    return struct.pack("<BQ", opcode, len(body)) + body


def lp(text):
    return struct.pack("<I", len(text.encode())) + text.encode()


def test_flags_other_than_zero_and_one_are_refused(monkeypatch):
    step = dataclasses.replace(make_steps(1, np.random.default_rng(0))[0], is_last=2)
    monkeypatch.setattr(chunk, "check_step", lambda step, spec: None)  # a robot that does not look
    with pytest.raises(ChunkRefused, match="is_last: expected 0 or 1"):
        decode_chunk(encode_chunk([step], make_meta(1)))


def test_a_chunk_is_validated_against_the_key_it_was_announced_by():
    key = GOOD_META.key
    assert check_chunk(GOOD, key, max_bytes=10**6).meta == GOOD_META
    assert check_chunk(GOOD, None, max_bytes=10**6).meta == GOOD_META
    with pytest.raises(ChunkRefused, match="announced as"):
        check_chunk(GOOD, key._replace(seq=4), max_bytes=10**6)
    with pytest.raises(ChunkRefused, match="at most 100"):
        check_chunk(GOOD, key, max_bytes=100)


def test_a_key_cannot_leave_its_folder(tmp_path):
    session = "0" * 32
    path = chunk_path(tmp_path, ChunkKey("r1", session, 12))
    assert path == tmp_path / "r1" / session / "00000012.mcap"
    for key in [("..", session, 0), ("r1", "../" * 8, 0), ("r1", session, -1), ("", session, 0)]:
        with pytest.raises(ChunkRefused):
            chunk_path(tmp_path, ChunkKey(*key))


def test_steps_that_do_not_fit_are_not_encoded():
    steps = make_steps(2, np.random.default_rng(0))
    with pytest.raises(ChunkRefused, match="3 steps"):
        encode_chunk(steps, make_meta(3))
    short = dataclasses.replace(steps[0], action=np.zeros(1, np.float32))
    with pytest.raises(SpecMismatch, match="action"):
        encode_chunk([short, steps[1]], make_meta(2))
    with pytest.raises(SpecMismatch, match="stamp"):
        encode_chunk([dataclasses.replace(steps[0], stamp_ns=-1)], make_meta(1))
    with pytest.raises(ChunkRefused, match="topics"):
        make_meta(1, SPEC.model_copy(update={"vectors": {"step": VectorSpec(size=1)}}))


@pytest.mark.parametrize("missing", [("period_s",), ("policy_version", "period_s")])
def test_a_recording_that_is_older_than_a_field_is_read_with_its_default(monkeypatch, missing):
    steps, meta = make_steps(3, np.random.default_rng(0)), make_meta(3)
    older = {name: dtype for name, dtype in NUMBERS.items() if name not in missing}
    monkeypatch.setattr(chunk, "NUMBERS", older)
    data = encode_chunk(steps, meta)
    monkeypatch.undo()
    _, got = decode_chunk(data)
    for read, written in zip(got, steps, strict=True):
        defaults = {"policy_version": -1, "period_s": 0.0}
        assert_same_step(read, dataclasses.replace(written, **{k: defaults[k] for k in missing}))


def test_a_recording_without_a_field_that_has_no_default_is_refused(monkeypatch):
    monkeypatch.setattr(chunk, "NUMBERS", {"reward": NUMBERS["reward"]})
    data = encode_chunk(make_steps(1, np.random.default_rng(0)), make_meta(1))
    monkeypatch.undo()
    with pytest.raises(ChunkRefused, match="expected 4 values"):
        read_columns(data)

"""Sessions as rosbag2 and MCAP, read by the libraries ``rosbags`` and ``mcap``."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from rosbags.rosbag2 import Reader
from rosbags.typesys import Stores, get_typestore

from tests.wm_core.recordings.outgoing.conftest import ONE_VECTOR, SPEC, episode
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS
from wm_core.recordings.outgoing.bags import TYPE_HASHES
from wm_core.recordings.outgoing.export import export_store

TYPES = get_typestore(Stores.ROS2_JAZZY)


def messages_of_rosbag2(folder):
    """(topic, log time, message) of everything, as ``rosbags`` reads it, and what it says."""
    with Reader(folder) as reader:
        found = [
            (connection.topic, log_time, TYPES.deserialize_cdr(data, connection.msgtype))
            for connection, log_time, data in reader.messages()
        ]
    meta = yaml.safe_load((folder / "metadata.yaml").read_text())
    return found, json.loads(meta["rosbag2_bagfile_information"]["custom_data"]["wm_ros"])


def messages_of_mcap(path):
    """The same as the library ``mcap`` reads it, every checksum compared."""
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = [
            (channel.topic, message.log_time, TYPES.deserialize_cdr(message.data, schema.name))
            for schema, channel, message in reader.iter_messages()
        ]
        (about,) = [r.metadata["meta"] for r in reader.iter_metadata() if r.name == "wm_ros"]
    return found, json.loads(about)


@pytest.mark.parametrize("format", ["rosbag2", "mcap"])
def test_every_message_of_a_step_is_read_back_by_foreign_code(format, store, all_steps, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, format)
    name = f"robot1-{'a' * 32}"
    found, about = (
        messages_of_rosbag2(out / name)
        if format == "rosbag2"
        else messages_of_mcap(out / f"{name}.mcap")
    )
    assert Spec.model_validate(about["spec"]) == SPEC
    assert (about["robot"], about["task"]) == ("robot1", "seek")
    assert about["episodes"] == [[0, 20], [20, 9]]
    steps = [*all_steps[0], *all_steps[1]]
    times = sorted({time for _, time, _ in found})
    assert len(times) == len(steps)
    assert len(found) == len(steps) * (len(SPEC.inputs) + 2)
    for step, time in zip(steps, times, strict=True):
        at = {topic: message for topic, log_time, message in found if log_time == time}
        for message in at.values():
            stamp = message.header.stamp
            assert stamp.sec * 10**9 + stamp.nanosec == step.stamp_ns
        for key, image in SPEC.images.items():
            message = at[f"/{key}"]
            assert message.encoding == image.encoding
            pixels = message.data.view(image.dtype.newbyteorder("<")).reshape(image.shape)
            np.testing.assert_array_equal(pixels, step.obs[key])
        for key in SPEC.vectors:
            np.testing.assert_array_equal(at[f"/{key}"].position, step.obs[key])
        np.testing.assert_array_equal(at["/action"].position, step.action)
        requested = [] if step.requested_action is None else step.requested_action
        np.testing.assert_array_equal(at["/action"].effort, requested)
        numbers = dict(zip(at["/step"].name, at["/step"].position.tolist(), strict=True))
        assert numbers == {name: float(getattr(step, name)) for name in NUMBERS}


def test_a_rosbag2_says_what_is_in_it(store, tmp_path):
    export_store(store, tmp_path / "out", "rosbag2")
    with Reader(tmp_path / "out" / f"robot1-{'a' * 32}") as reader:
        assert {c.topic: (c.msgtype, c.msgcount) for c in reader.connections} == {
            **{f"/{key}": ("sensor_msgs/msg/Image", 29) for key in SPEC.images},
            **{f"/{key}": ("sensor_msgs/msg/JointState", 29) for key in SPEC.vectors},
            "/action": ("sensor_msgs/msg/JointState", 29),
            "/step": ("sensor_msgs/msg/JointState", 29),
        }
        times = [time for _, time, _ in reader.messages()]
        assert (reader.start_time, reader.end_time) == (times[0], times[-1] + 1)
        assert reader.message_count == len(times)


def test_types_are_known_by_the_hashes_that_ros_gives_them():
    assert {kind: TYPES.hash_rihs01(kind) for kind in TYPE_HASHES} == TYPE_HASHES


def test_sessions_of_other_specs_have_bags_of_their_own(maker, tmp_path):
    maker.add(episode(SPEC, 4, seed=0), SPEC)
    maker.add(episode(ONE_VECTOR, 4, seed=0), ONE_VECTOR, robot="other", session="c" * 32)
    maker.add(episode(SPEC, 4, seed=3), SPEC, task="push")  # within the first session
    export_store(maker.root, tmp_path / "out", "mcap")
    names = [f"other-{'c' * 32}", f"robot1-{'a' * 32}", f"robot1-{'a' * 32}-2"]
    assert sorted(path.stem for path in (tmp_path / "out").iterdir()) == names
    assert messages_of_mcap(tmp_path / "out" / f"{names[2]}.mcap")[1]["task"] == "push"


def test_log_times_grow_where_stamps_do_not(maker, tmp_path):
    steps = episode(SPEC, 6, seed=0)
    for step in steps[3:]:
        object.__setattr__(step, "stamp_ns", steps[0].stamp_ns)
    maker.add(steps, SPEC, chunk=2)
    export_store(maker.root, tmp_path / "out", "mcap")
    found, _ = messages_of_mcap(next((tmp_path / "out").iterdir()))
    times = [time for topic, time, _ in found if topic == "/step"]
    assert len(times) == 6
    assert times == sorted(set(times))

"""JPEG pictures of a chunk: encoded once, copied bit for bit, held to what they may be."""

from __future__ import annotations

import dataclasses
import io
import json

import numpy as np
import pytest
from mcap.reader import make_reader
from PIL import Image
from rosbags.typesys import Stores, get_typestore

from tests.wm_core.noisy import JPEG, SPEC, noisy_chunk, noisy_frame, noisy_step
from wm_core.contract.errors import ChunkRefused, ChunkVersionRefused
from wm_core.contract.spec import ImageSpec
from wm_core.format.chunk import (
    ChunkMeta,
    decode_chunk,
    encode_chunk,
    encode_step,
    join_steps,
    read_columns,
)
from wm_core.format.front import read_front
from wm_core.format.pictures import (
    check_picture,
    decode_picture,
    encode_picture,
    most_bytes,
)
from wm_core.format.salvage import salvage

COLOUR, GREY = SPEC.images["image"], SPEC.images["wrist"]


@pytest.mark.parametrize("image", [COLOUR, GREY, ImageSpec(height=1, width=1)])
def test_a_picture_is_near_what_the_camera_saw(image):
    frame = noisy_frame(3, image, noise=2.0)
    data = encode_picture(frame, image)
    assert data == encode_picture(frame.copy(), image)
    got = decode_picture(data, image)
    assert (got.shape, got.dtype) == (image.shape, np.uint8)
    assert np.abs(got.astype(int) - frame).mean() < 4
    opened = np.asarray(Image.open(io.BytesIO(data)))
    np.testing.assert_array_equal(got, opened.reshape(got.shape))


@pytest.mark.parametrize("size", [1, 2, 7, 8, 9, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_pure_noise_stays_within_the_bound_of_a_picture(size, channels):
    image = ImageSpec(height=size, width=size, channels=channels)
    noise = np.random.default_rng(size).choice([0, 255], image.shape).astype(np.uint8)
    assert len(encode_picture(noise, image)) <= most_bytes(image)


def test_a_chunk_of_pictures_gives_the_steps_back_with_their_pictures():
    _, data, _ = noisy_chunk(20)
    meta, steps = decode_chunk(data)
    assert (meta.version, meta.codecs) == (2, JPEG)
    for number, step in enumerate(steps):
        original = noisy_step(number)
        assert step.jpegs.keys() == JPEG.keys()
        assert step.jpegs["image"] == encode_picture(original.obs["image"], COLOUR)
        np.testing.assert_array_equal(step.obs["range"], original.obs["range"])
        for key in JPEG:
            decoded = decode_picture(step.jpegs[key], SPEC.images[key])
            np.testing.assert_array_equal(step.obs[key], decoded)


def test_what_is_encoded_again_is_the_same_to_the_bit():
    """A picture that was decoded and encoded anew would lose a little each time."""
    _, data, _ = noisy_chunk(20)
    meta, steps = decode_chunk(data)
    assert encode_chunk(steps, meta) == data
    relabelled = [dataclasses.replace(step, reward=7.0) for step in steps]
    again = decode_chunk(encode_chunk(relabelled, meta))[1]
    assert [step.jpegs for step in again] == [step.jpegs for step in steps]


def test_a_camera_without_a_codec_is_lossless_beside_one_with():
    _, data, _ = noisy_chunk(5, codecs={"wrist": "jpeg"})
    for number, step in enumerate(decode_chunk(data)[1]):
        np.testing.assert_array_equal(step.obs["image"], noisy_step(number).obs["image"])


def test_both_ways_of_reading_give_the_same():
    _, data, _ = noisy_chunk(20)
    quick, slow = read_columns(data), read_columns(data, bulk=False)
    for key in SPEC.images:
        np.testing.assert_array_equal(quick.image_offset[key], slow.image_offset[key])
        np.testing.assert_array_equal(quick.image(key, 7), slow.image(key, 7))
    np.testing.assert_array_equal(quick.stamp_ns, slow.stamp_ns)


def test_a_lossless_chunk_says_nothing_of_codecs():
    """So its bytes, and their hash, are those that every version before made."""
    _, data, _ = noisy_chunk(3, codecs={})
    meta = next(make_reader(io.BytesIO(data)).iter_metadata()).metadata["meta"]
    assert "codecs" not in json.loads(meta)
    assert json.loads(meta)["version"] == 1


def test_other_tools_read_the_pictures():
    _, data, _ = noisy_chunk(3)
    types = get_typestore(Stores.ROS2_JAZZY)
    found = 0
    for schema, channel, message in make_reader(io.BytesIO(data)).iter_messages(
        ["/image/compressed"]
    ):
        assert (schema.name, channel.topic) == (
            "sensor_msgs/msg/CompressedImage",
            "/image/compressed",
        )
        ros = types.deserialize_cdr(message.data, schema.name)
        assert (ros.format, ros.header.frame_id) == ("jpeg", "image")
        assert Image.open(io.BytesIO(ros.data.tobytes())).size == (40, 32)
        assert types.serialize_cdr(ros, schema.name).tobytes() == message.data
        found += 1
    assert found == 3


def test_a_file_says_its_codecs_in_front(tmp_path):
    _, data, _ = noisy_chunk(3)
    (tmp_path / "chunk.mcap").write_bytes(data)
    assert read_front(tmp_path / "chunk.mcap").meta.codecs == JPEG


def test_a_damaged_chunk_gives_the_pictures_of_its_whole_blocks():
    _, data, _ = noisy_chunk(40)
    blocks = read_columns(data).recording.blocks
    damaged = bytearray(data)
    damaged[blocks[1].offset + 30] ^= 0xFF
    found = salvage(bytes(damaged))
    assert sorted(found.steps) == [*range(16), *range(32, 40)]
    whole = decode_chunk(data)[1]
    assert all(step.jpegs == whole[i].jpegs for i, step in found.steps.items())


@pytest.mark.parametrize(
    ("codecs", "version"),
    [
        ({"range": "jpeg"}, 2),
        ({"other": "jpeg"}, 2),
        ({"image": "webp"}, 2),
        ({}, 2),
        ({"image": "jpeg"}, 1),
    ],
)
def test_codecs_that_cannot_be_are_refused(codecs, version):
    known = {"robot": "r", "session": "0" * 32, "seq": 0, "first_step": 0, "steps": 1}
    text = json.dumps(
        known | {"spec": SPEC.model_dump(mode="json"), "codecs": codecs, "version": version}
    )
    with pytest.raises(ChunkRefused):
        ChunkMeta.parse(text)


def test_a_version_that_nobody_knows_is_refused_as_such():
    _, data, _ = noisy_chunk(1)
    meta = decode_chunk(data)[0].model_dump(mode="json") | {"version": 3}
    with pytest.raises(ChunkVersionRefused, match="1 or 2, got 3"):
        ChunkMeta.parse(json.dumps(meta))


# ---- pictures that are not what they should be -----------------------------------------------


def picture(**save) -> bytes:
    out = io.BytesIO()
    Image.fromarray(noisy_frame(0, COLOUR)).save(out, "JPEG", **save)
    return out.getvalue()


def _with_frame_before(data: bytes) -> bytes:
    """A frame of 8192 x 8192 in front, in a segment that some readers pass over."""
    at = data.index(b"\xff\xc0")
    large = bytearray(data[at : at + 19])
    large[5:9] = b"\x20\x00\x20\x00"
    return data[:2] + b"\xff\x00" + (2 + len(large)).to_bytes(2, "big") + bytes(large) + data[2:]


def _sized(data: bytes, rows: int) -> bytes:
    at = data.index(b"\xff\xc0") + 5
    return data[:at] + rows.to_bytes(2, "big") + data[at + 2 :]


GOOD = picture(quality=95)
WRONG = {
    "empty": b"",
    "a PNG": b"\x89PNG\r\n\x1a\n" + bytes(40),
    "of no rows": _sized(GOOD, 0),
    "of more rows": _sized(GOOD, 8192),
    "of fewer rows": _sized(GOOD, 31),
    "progressive": picture(progressive=True),
    "cut in its header": GOOD[:100],
    "cut before its pixels": GOOD[: GOOD.index(b"\xff\xda")],
    "with a frame that others pass over": _with_frame_before(GOOD),
    "with two frames": GOOD[:2] + GOOD[GOOD.index(b"\xff\xc0") :][:19] + GOOD[2:],
    "with bytes between its markers": GOOD[:2] + b"\x00" + GOOD[2:],
    "too long": GOOD + bytes(most_bytes(COLOUR)),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_plain_picture_of_its_size_is_refused_before_it_is_decoded(what):
    with pytest.raises(ChunkRefused):
        check_picture(WRONG[what], COLOUR)
    with pytest.raises(ChunkRefused):
        decode_picture(WRONG[what], COLOUR)
    step = noisy_step(3, jpegs={"image": WRONG[what]})
    with pytest.raises(ChunkRefused):
        encode_step(step, SPEC, JPEG)


def test_grey_and_colour_do_not_stand_in_for_each_other():
    grey = ImageSpec(height=32, width=40, channels=1)
    with pytest.raises(ChunkRefused, match="expected a JPEG picture"):
        check_picture(GOOD, grey)
    with pytest.raises(ChunkRefused):
        check_picture(encode_picture(noisy_frame(0, grey), grey), COLOUR)


def test_every_cut_of_a_picture_is_refused_or_decodes_to_its_size():
    for end in range(0, len(GOOD), 3):
        try:
            assert decode_picture(GOOD[:end], COLOUR).shape == COLOUR.shape
        except ChunkRefused:
            continue
    with pytest.raises(ChunkRefused, match="does not decode"):
        decode_picture(GOOD[:-100], COLOUR)


def test_a_chunk_names_the_step_whose_picture_does_not_fit():
    spec, meta = SPEC, decode_chunk(noisy_chunk(3)[1])[0]
    steps = [encode_step(noisy_step(i), spec, JPEG) for i in range(3)]
    other = encode_step(noisy_step(1), spec, {})  # an Image where a CompressedImage belongs
    smaller = picture()[: GOOD.index(b"\xff\xda")]
    broken = steps[1].messages[0].replace(GOOD[:4], smaller[:4])
    at = broken.index(b"\xff\xc0") + 5
    broken = broken[:at] + b"\x00\x08" + broken[at + 2 :]
    for messages, match in (
        ([broken, *steps[1].messages[1:]], "/image/compressed step 1: "),
        (other.messages, "format|CDR"),
    ):
        data = join_steps([steps[0], steps[1]._replace(messages=messages), steps[2]], meta)
        with pytest.raises(ChunkRefused, match=match):
            read_columns(data)

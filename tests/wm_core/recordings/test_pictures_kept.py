"""What becomes of a store of JPEG pictures elsewhere: the bytes are copied, never made again."""

from __future__ import annotations

import numpy as np
import pytest
from rosbags.highlevel import AnyReader

from tests.wm_core.noisy import JPEG, noisy_chunk
from wm_core.cli.main import main
from wm_core.format.chunk import decode_chunk, read_columns
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger

SESSION = "d" * 32


@pytest.fixture
def root(tmp_path):
    """A run whose session began without loss and went on with pictures, 50 steps in all."""
    store = tmp_path / "run" / "store"
    ledger = Ledger(store / LEDGER_NAME)
    for seq, (first, count, codecs) in enumerate([(0, 20, {}), (20, 20, JPEG), (40, 10, JPEG)]):
        chunk = noisy_chunk(
            count, first=first, seq=seq, session=SESSION, codecs=codecs, episode=25
        )
        assert ingest(store, ledger, *chunk).kind == "stored"
    ledger.close()
    return store.parent


def steps_of(root):
    """The steps of a store in order, whatever their chunks and sessions are."""
    found = [decode_chunk(path.read_bytes())[1] for path in sorted(root.rglob("*.mcap"))]
    return sorted((step for steps in found for step in steps), key=lambda step: step.stamp_ns)


def alike(got, stored):
    assert [step.stamp_ns for step in got] == [step.stamp_ns for step in stored]
    for a, b in zip(got, stored, strict=True):
        assert a.jpegs == b.jpegs
        for key in b.obs:
            np.testing.assert_array_equal(a.obs[key], b.obs[key])


def wm(*words):
    return main(["data", *map(str, words)])


@pytest.mark.parametrize("format", ["mcap", "rosbag2"])
def test_a_bag_has_the_pictures_as_they_are_and_gives_them_back(root, tmp_path, format):
    out, back = tmp_path / "out", tmp_path / "back"
    assert wm("export", "--root", root, "--to", out, "--format", format) == 0
    stored = steps_of(root)
    with AnyReader(sorted(out.glob("rover*"))) as bag:
        counts = {c.topic: (c.msgtype, c.msgcount) for c in bag.connections}
        assert counts["/image"] == ("sensor_msgs/msg/Image", 20)
        assert counts["/image/compressed"] == ("sensor_msgs/msg/CompressedImage", 30)
        [camera] = [c for c in bag.connections if c.topic == "/image/compressed"]
        for step, (_, _, raw) in zip(stored[20:], bag.messages([camera]), strict=True):
            message = bag.deserialize(raw, camera.msgtype)
            assert message.data.tobytes() == step.jpegs["image"]
    assert wm("import", out, "--root", back) == 0
    alike(steps_of(back), stored)


@pytest.mark.parametrize("format", ["lerobot", "npz"])
def test_other_formats_have_the_pixels_that_the_learner_sees(root, tmp_path, format):
    assert wm("export", "--root", root, "--to", tmp_path / "out", "--format", format) == 0
    assert wm("import", tmp_path / "out", "--root", tmp_path / "back") == 0
    got, stored = steps_of(tmp_path / "back"), steps_of(root)
    assert len(got) == len(stored)
    for a, b in zip(got, stored, strict=True):
        for key in b.obs:
            np.testing.assert_array_equal(a.obs[key], b.obs[key])


def test_labels_leave_the_pictures_alone(root, tmp_path):
    to = tmp_path / "labelled"
    command = ["--root", root, "--to", to, "--with", "column", "is_intervention + 1"]
    assert wm("label", *command) == 0
    alike(steps_of(to), steps_of(root))


def test_parts_of_a_store_have_its_pictures(root, tmp_path):
    assert wm("split", "--root", root, "--share", 0.5, "--to", tmp_path / "parts") == 0
    alike(steps_of(tmp_path / "parts"), steps_of(root))


@pytest.mark.parametrize("meta_too", [False, True])
def test_a_repaired_chunk_has_the_pictures_of_its_whole_blocks(root, meta_too):
    stored = steps_of(root)
    path = sorted(root.rglob("*.mcap"))[1]
    data = bytearray(path.read_bytes())
    data[read_columns(bytes(data)).recording.blocks[1].offset + 40] ^= 0xFF
    if meta_too:  # what it is stands in its lossless neighbours, but for how it was recorded
        data[data.index(b"wm_chunk") + 40] ^= 0xFF
    path.write_bytes(bytes(data))
    assert wm("verify", "--root", root) != 0
    assert wm("repair", "--root", root) == 1  # four steps are lost
    kept = [step for i, step in enumerate(stored) if not 36 <= i < 40]
    alike(steps_of(root / "store" / "rover"), kept)


def test_care_looks_at_pictures_as_at_images(root, tmp_path, capsys):
    assert wm("verify", "--root", root) == 0
    assert wm("show", "--root", root, "last", "--to", tmp_path / "show") == 0
    capsys.readouterr()
    assert main(["info", str(sorted(root.rglob("*.mcap"))[1])]) == 0
    assert "jpeg" in capsys.readouterr().out
    assert wm("info", "--root", root) == 0
    assert "image in 30 steps, wrist in 30 steps" in " ".join(capsys.readouterr().out.split())

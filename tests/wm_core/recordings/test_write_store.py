"""What a recording holds arrives in the store whole, once, and with what was left out."""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from wm_core.contract.errors import RecordingError
from wm_core.contract.inputs import RGB
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import decode_chunk
from wm_core.recordings.formats import recordings_below
from wm_core.recordings.libraries import import_library
from wm_core.recordings.write_store import Written, chunk_steps, write_store

SPEC = Spec(images={"image": RGB(height=4, width=4)}, action=ActionSpec(low=(-1,), high=(1,)))


class Numbered:
    """Is a recording whose steps hold their own numbers."""

    name, task, spec = "numbered", "count", SPEC

    def __init__(self, lengths, *, broken=False):
        self.lengths, self.broken = lengths, broken
        self.left_out = Counter()

    @property
    def fingerprint(self):
        return hashlib.sha256(str(self.lengths).encode()).hexdigest()

    def episodes(self):
        self.left_out.clear()
        first = 0
        for length in self.lengths:
            yield self.steps(first, length)
            first += length
        self.left_out["no_action"] = 3

    def steps(self, first, length):
        for i in range(length):
            yield Step(
                obs={"image": np.full((4, 4, 3), (first + i) % 256, np.uint8)},
                action=np.zeros(1, np.float32),
                reward=float(first + i),
                is_first=i == 0,
                is_last=i == length - 1 and not self.broken,
                is_terminal=False,
                stamp_ns=first + i,
            )


def stored(root):
    """(meta, steps) of every chunk of a store, in order."""
    return [decode_chunk(path.read_bytes()) for path in sorted(root.rglob("*.mcap"))]


def test_every_step_arrives_in_order_and_what_was_left_out_stands_in_the_last_chunk(tmp_path):
    assert write_store(Numbered((70, 1, 80)), tmp_path) == Written(3, 151, new=3)
    chunks = stored(tmp_path)
    assert [meta.steps for meta, _ in chunks] == [64, 64, 23]
    assert [meta.first_step for meta, _ in chunks] == [0, 64, 128]
    assert [meta.dropped for meta, _ in chunks] == [{}, {}, {"no_action": 3}]
    steps = [step for _, steps in chunks for step in steps]
    assert [step.reward for step in steps] == [*range(151)]
    assert [i for i, step in enumerate(steps) if step.is_first] == [0, 70, 71]
    assert [i for i, step in enumerate(steps) if step.is_last] == [69, 70, 150]


def test_the_same_recording_is_stored_once(tmp_path):
    write_store(Numbered((70,)), tmp_path)
    assert write_store(Numbered((70,)), tmp_path) == Written(1, 70, known=2)
    assert write_store(Numbered((71,)), tmp_path) == Written(1, 71, new=2)
    assert write_store(Numbered((0,)), tmp_path) == Written()


def test_an_episode_without_an_end_is_refused_and_leaves_no_store(tmp_path):
    with pytest.raises(RecordingError, match="ends without is_last"):
        write_store(Numbered((3,), broken=True), tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_recording_without_a_step_leaves_no_store(tmp_path):
    assert write_store(Numbered((0, 0)), tmp_path / "store") == Written()
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize("name", ["", "Rover", "a/../b", "n" * 65])
def test_a_name_that_no_robot_can_have_is_refused_before_anything_is_written(name, tmp_path):
    recording = Numbered((3,))
    recording.name = name
    with pytest.raises(RecordingError, match=r"expected 1 to 64 of a-z.*--name"):
        write_store(recording, tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_a_full_disk_is_told_and_what_is_stored_is_known_afterwards(tmp_path):
    with pytest.raises(RecordingError, match="make room and import again"):
        write_store(Numbered((70,)), tmp_path, min_free_bytes=2**60)
    assert write_store(Numbered((70,)), tmp_path).new == 2


def test_large_steps_make_short_chunks():
    large = SPEC.model_copy(update={"images": {"image": RGB(height=1080, width=1920)}})
    assert (chunk_steps(SPEC), chunk_steps(large)) == (64, 2)


def test_a_library_that_is_missing_is_named_with_its_cure():
    with pytest.raises(RecordingError, match=r"pip install -e '/.*\[data\]'"):
        import_library("no_such_library.part", needed_for="files of that kind")


def test_a_folder_without_recordings_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(RecordingError, match="no recording"):
        recordings_below(tmp_path)


def test_a_recording_that_is_not_there_brings_the_nearest(tmp_path, monkeypatch):
    (tmp_path / "drives").mkdir()
    with pytest.raises(RecordingError, match=r"does not exist.*nothing is downloaded"):
        recordings_below(tmp_path / "absent")
    with pytest.raises(RecordingError, match=f"did you mean {tmp_path / 'drives'}"):
        recordings_below(tmp_path / "drive")
    (tmp_path / "kept" / "door" / "human-v2").mkdir(parents=True)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "kept"))
    with pytest.raises(RecordingError, match=f"Minari set .* is {tmp_path}/kept/door/human-v2"):
        recordings_below(Path("door/human-v2"))

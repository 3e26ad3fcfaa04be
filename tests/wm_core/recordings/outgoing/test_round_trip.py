"""A store that is exported and imported again holds the same steps, bit for bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.wm_core.recordings.outgoing.conftest import ONE_VECTOR, SPEC, episode, same
from wm_core.cli.data import main
from wm_core.contract.errors import RecordingError
from wm_core.contract.spec import ActionSpec
from wm_core.format.chunk import decode_chunk
from wm_core.recordings.formats import format_of, reader
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.outgoing.export import export_store
from wm_core.recordings.outgoing.format import FORMATS

#: formats whose whole export is one session of one robot when it is imported
IN_ONE = ("lerobot", "npz")


def steps_of(store):
    """The steps of every session of a store, by robot, first stamps first."""
    found = {}
    for path in sorted(store.rglob("*.mcap")):
        meta, steps = decode_chunk(path.read_bytes())
        found.setdefault((meta.robot, meta.session), []).extend(steps)
    return sorted(found.items(), key=lambda item: (item[0][0], item[1][0].stamp_ns))


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_exported_and_imported_is_what_was_stored(format, store, all_steps, tmp_path):
    root = str(store.parent)
    assert main(["export", "--root", root, "--to", str(tmp_path / "out"), "--format", format]) == 0
    assert main(["import", str(tmp_path / "out"), "--root", str(tmp_path / "back")]) == 0
    back = steps_of(tmp_path / "back" / "store")
    got = [step for _, steps in back for step in steps]
    stored = [step for steps in all_steps for step in steps]
    assert len(back) == (1 if format in IN_ONE else 2)
    assert len(got) == len(stored) == 34
    assert all(same(a, b) for a, b in zip(stored, got, strict=True))


def test_by_video_pixels_come_back_nearly_and_everything_else_exactly(maker, tmp_path):
    steps = episode(SPEC, 12, seed=0)
    for t, step in enumerate(steps):
        step.obs["image"][:] = 20 * t
    maker.add(steps, SPEC)
    export_store(maker.root, tmp_path / "out", "lerobot", video=True)
    assert main(["import", str(tmp_path / "out"), "--root", str(tmp_path / "back")]) == 0
    ((_, got),) = steps_of(tmp_path / "back" / "store")
    for step, other in zip(steps, got, strict=True):
        np.testing.assert_allclose(other.obs["image"], step.obs["image"], atol=8)
        other.obs["image"] = step.obs["image"]
        assert same(step, other)


@pytest.mark.parametrize("format", ["rosbag2", "mcap"])
def test_a_bag_of_ours_brings_robot_and_task_along_and_is_stored_once(format, store, tmp_path):
    export_store(store, tmp_path / "out", format)
    command = ["import", str(tmp_path / "out"), "--root", str(tmp_path / "back")]
    assert main(command) == main(command) == 0
    back = steps_of(tmp_path / "back" / "store")
    assert [(robot, len(steps)) for (robot, _), steps in back] == [("robot1", 29), ("robot2", 5)]
    (path,) = (tmp_path / "back" / "store" / "robot2").rglob("*.mcap")
    assert decode_chunk(path.read_bytes())[0].task == "seek"


def test_where_steps_were_missing_an_episode_ends_and_another_begins(maker, tmp_path):
    steps = episode(SPEC, 20, seed=0)
    maker.add(steps[:8], SPEC)
    maker.add(steps[12:], SPEC, skip=4)
    export_store(maker.root, tmp_path / "out", "mcap")
    assert main(["import", str(tmp_path / "out"), "--root", str(tmp_path / "back")]) == 0
    ((_, got),) = steps_of(tmp_path / "back" / "store")
    stored = [*steps[:7], replace(steps[7], is_last=True)]
    stored += [replace(steps[12], is_first=True), *steps[13:]]
    assert all(same(a, b) for a, b in zip(stored, got, strict=True))


@pytest.mark.parametrize(
    ("action", "said"),
    [
        (ActionSpec(low=(-3.0, -2.0), high=(3.0, 2.0)), "bounds of action 0: expected -1 .. 1"),
        (ActionSpec.choices(2), "actions: expected 2 actions, got 2 choices"),
        (ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0), max_change=0.5), "a name or a limit"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--action", "action"]])
def test_npz_files_of_another_spec_are_imported_apart(maker, tmp_path, action, said, options):
    other = SPEC.model_copy(update={"action": action})
    maker.add(episode(SPEC, 6, seed=0), SPEC)
    maker.add(episode(other, 4, seed=1), other, robot="robot2", session="b" * 32)
    export_store(maker.root, tmp_path / "out", "npz")
    words = ["--root", str(tmp_path / "back"), *options]
    with pytest.raises(RecordingError) as refused:
        main(["import", str(tmp_path / "out"), *words])
    line = str(refused.value)
    assert "episode-000001.npz: recorded with another spec than episode-000000.npz" in line
    assert said in line
    assert "import the files of each spec apart" in line
    assert not (tmp_path / "back").exists()
    if options:
        return
    (tmp_path / "apart").mkdir()
    name = "episode-000001.npz"
    (tmp_path / "out" / name).rename(tmp_path / "apart" / name)
    assert main(["import", str(tmp_path / "out"), str(tmp_path / "apart"), *words]) == 0


def test_choices_come_back_as_choices(maker, tmp_path):
    steps = episode(ONE_VECTOR, 12, seed=0)
    maker.add(steps, ONE_VECTOR)
    export_store(maker.root, tmp_path / "out", "rosbag2")
    (bag,) = (tmp_path / "out").iterdir()
    source = reader(format_of(bag)).open_source(bag, ReadOptions())
    assert source.spec == ONE_VECTOR
    (got,) = [list(run) for run in source.episodes()]
    assert all(same(a, b) for a, b in zip(steps, got, strict=True))


@pytest.mark.parametrize("format", ["rosbag2", "mcap"])
def test_a_flipped_bit_is_refused_or_was_in_nothing_that_is_read(
    format, store, all_steps, tmp_path
):
    export_store(store, tmp_path / "out", format)
    (bag,) = (tmp_path / "out").glob("robot2*")
    file = bag if format == "mcap" else next(bag.glob("*.mcap"))
    whole, refused = file.read_bytes(), 0
    for at in range(100, len(whole), len(whole) // 25):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        if format_of(bag) != "own bag":  # what it says of itself is damaged too
            continue
        try:
            source = reader("own bag").open_source(bag, ReadOptions())
            steps = [step for run in source.episodes() for step in run]
        except RecordingError:
            refused += 1
            continue
        assert all(same(a, b) for a, b in zip(all_steps[2], steps, strict=True))
    assert refused > 5

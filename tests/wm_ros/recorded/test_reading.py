"""Bags of every storage and compression are read alike; damaged ones are refused by place."""

from __future__ import annotations

import itertools

import pytest

from tests.wm_ros.recorded.bags import ROBOT, drive, write_bag
from wm_core.cli.main import main
from wm_core.contract.errors import RecordingError
from wm_core.format.chunk import decode_chunk
from wm_core.recordings.options import ReadOptions
from wm_ros.recorded.reader import open_source, recognise

KINDS = [
    *itertools.product(("mcap", "sqlite3"), ("none", "file", "message")),
    ("mcap", "storage"),
]


def steps_of(path, options):
    return [s for episode in open_source(path, options).episodes() for s in episode]


@pytest.fixture
def options(tmp_path):
    (tmp_path / "robot.yaml").write_text(ROBOT)
    return ReadOptions(robot=tmp_path / "robot.yaml")


@pytest.mark.parametrize(("storage", "compression"), KINDS)
def test_every_storage_and_compression_is_read(storage, compression, tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(12), storage=storage, compression=compression)
    assert recognise(bag)
    steps = steps_of(bag, options)
    assert [int(s.obs["image"][0, 0, 0]) for s in steps] == [*range(12)]


def test_a_plain_mcap_file_is_read(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(12))
    (file,) = bag.glob("*.mcap")
    moved = file.rename(tmp_path / "alone.mcap")
    assert len(steps_of(moved, options)) == 12


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.97])
def test_a_file_that_is_cut_off_is_refused_by_name(storage, share, tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(60), storage=storage)
    (file,) = [p for p in bag.iterdir() if p.suffix in (".mcap", ".db3")]
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * share)])
    with pytest.raises(RecordingError, match=file.name):
        steps_of(bag, options)


def test_missing_metadata_and_missing_files_are_said(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(3), storage="sqlite3")
    (file,) = bag.glob("*.db3")
    file.rename(tmp_path / "elsewhere")
    with pytest.raises(RecordingError, match=f"missing: {file.name}"):
        open_source(bag, options)
    (tmp_path / "elsewhere").rename(file)
    (bag / "metadata.yaml").unlink()
    assert recognise(bag)
    with pytest.raises(RecordingError, match="ros2 bag reindex"):
        open_source(bag, options)


def test_the_command_line_imports_a_bag_once(tmp_path, options, capsys):
    (tmp_path / "bags").mkdir()
    bag = write_bag(tmp_path / "bags" / "one", drive(70))
    words = ["data", "import", str(tmp_path / "bags"), "--robot", str(options.robot)]
    for new, known in ((2, 0), (0, 2)):
        assert main([*words, "--root", str(tmp_path / "run")]) == 0
        said = capsys.readouterr().out
        assert f"{bag}: 1 episodes, 70 steps of rover" in said
        assert f"{new} new chunks, {known} known" in said
    chunks = sorted((tmp_path / "run" / "store").rglob("*.mcap"))
    assert [decode_chunk(p.read_bytes())[0].steps for p in chunks] == [64, 6]


def test_a_bag_without_a_robot_file_lists_its_topics(tmp_path, capsys):
    bag = write_bag(tmp_path / "bag", drive(3))
    assert main(["data", "import", str(bag), "--root", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert "--robot" in said
    assert "/camera/image_raw (sensor_msgs/Image)" in said
    assert not (tmp_path / "run").exists()

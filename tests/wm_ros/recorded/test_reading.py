"""Bags of every storage and compression are read alike; damaged ones are refused by place."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import numpy as np
import pytest
import yaml

from tests.wm_ros.recorded.bags import (
    BEGIN_NS,
    ROBOT,
    compressed,
    drive,
    odometry,
    write_bag,
    write_mcap,
    written_by_ros,
)
from wm_core.cli.main import main
from wm_core.contract.errors import RecordingError
from wm_core.format.chunk import decode_chunk
from wm_core.library.data_import import import_recordings
from wm_core.recordings.options import ReadOptions
from wm_core.robot import RobotFile
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


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
@pytest.mark.parametrize("name", ["50% of it", "run #3", "what?", "bag%20é"])
def test_a_path_may_have_any_characters(name, storage, tmp_path, options, monkeypatch):
    write_bag(tmp_path / "bag", drive(3), storage=storage).rename(tmp_path / name)
    assert len(steps_of(tmp_path / name, options)) == 3
    monkeypatch.chdir(tmp_path)
    assert len(steps_of(Path(name), options)) == 3
    assert [entry.suffix for entry in (tmp_path / name).iterdir() if "-" in entry.suffix] == []


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


def test_options_of_tables_are_refused_of_bags(tmp_path, options, capsys):
    bag = write_bag(tmp_path / "bag", drive(3))
    words = ["data", "import", str(bag), "--robot", str(options.robot)]
    words += ["--root", str(tmp_path / "run"), "--image-size", "32x32", "--reward", "none"]
    assert main(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("leave out --reward and --image-size")
    assert not (tmp_path / "run").exists()


def test_a_bag_of_several_files_is_read_as_one(tmp_path, options):
    """The recorder splits a bag by size: the files follow each other, in one episode."""
    parts = [
        write_bag(tmp_path / f"part{i}", list(drive(20))[30 * i : 30 * i + 30]) for i in (0, 1)
    ]
    bag = write_bag(tmp_path / "bag", drive(20))
    (whole,) = bag.glob("*.mcap")
    names = [next(part.glob("*.mcap")) for part in parts]
    for name in names:
        name.rename(bag / name.name)
    about = yaml.safe_load((bag / "metadata.yaml").read_text())
    about["rosbag2_bagfile_information"]["relative_file_paths"] = [name.name for name in names]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(about))
    whole.unlink()
    (episode,) = (list(e) for e in open_source(bag, options).episodes())
    assert [int(s.obs["image"][0, 0, 0]) for s in episode] == [*range(20)]


@pytest.mark.parametrize("compression", ["LZ4", "ZSTD", "NONE"])
def test_mcap_of_another_writer_is_read(compression, tmp_path, options):
    path = write_mcap(tmp_path / "other.mcap", drive(12), compression=compression)
    assert [int(s.obs["image"][0, 0, 0]) for s in steps_of(path, options)] == [*range(12)]


def test_mcap_with_messages_of_another_kind_is_refused_by_what_it_holds(tmp_path, options):
    path = write_mcap(tmp_path / "other.mcap", drive(3), profile="", encoding="protobuf")
    with pytest.raises(RecordingError, match=r"got profile '' with protobuf"):
        open_source(path, options)


def test_a_wrong_checksum_is_refused_with_its_place(tmp_path, options):
    path = write_mcap(tmp_path / "other.mcap", drive(40), compression="NONE")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(RecordingError, match=r"other.mcap: damaged at byte \d+ of \d+: crc"):
        open_source(path, options)


def test_a_torn_page_of_a_database_is_refused(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(60), storage="sqlite3")
    (file,) = bag.glob("*.db3")
    data = bytearray(file.read_bytes())
    data[8192 : 8192 + 4096] = bytes(4096)
    file.write_bytes(data)
    with pytest.raises(RecordingError, match=f"{file.name}: damaged"):
        open_source(bag, options)


def test_a_packed_file_that_is_damaged_is_refused(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(60), compression="file")
    (file,) = bag.glob("*.zstd")
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(RecordingError, match="bag"):
        open_source(bag, options)


def test_an_old_bag_that_defines_no_message_is_read(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(12), storage="sqlite3", version=8)
    (file,) = bag.glob("*.db3")
    with sqlite3.connect(file) as database:
        database.execute("DELETE FROM message_definitions")
    database.close()
    assert len(steps_of(bag, options)) == 12


def test_compressed_images_are_read_as_the_robot_reads_them(tmp_path, options):
    robot = options.robot.read_text().replace(
        "sensor_msgs/Image, topic: camera/image_raw",
        "sensor_msgs/CompressedImage, topic: camera/image_raw/compressed",
    )
    options.robot.write_text(robot)
    messages = [
        (f"{topic}/compressed", at, compressed(msg)) if topic == "/camera/image_raw" else
        (topic, at, msg)
        for topic, at, msg in drive(12)
    ]  # fmt: skip
    bag = write_bag(tmp_path / "bag", messages)
    assert [int(s.obs["image"][0, 0, 0]) for s in steps_of(bag, options)] == [*range(12)]


def test_a_bag_that_is_named_twice_is_taken_once(tmp_path, options, capsys):
    bag = write_bag(tmp_path / "bag", drive(3))
    words = ["data", "import", "--robot", str(options.robot), "--root", str(tmp_path / "run")]
    assert main([*words, str(bag), str(bag / ".." / "bag")]) == 0
    assert capsys.readouterr().out.count("3 steps") == 1


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (["--from", "500"], "1.9 s after its begin, before --from 500"),
        (["--until", "1e-6"], "no step lies"),
    ],
)
def test_a_part_without_a_step_says_so_and_leaves_no_store(cut, said, tmp_path, options, capsys):
    bag = write_bag(tmp_path / "bag", drive(20))
    words = ["data", "import", str(bag), "--robot", str(options.robot), *cut]
    assert main([*words, "--root", str(tmp_path / "run")]) == 1
    assert said in capsys.readouterr().out
    assert not (tmp_path / "run").exists()


def test_a_disk_that_may_be_too_small_is_said_before_a_step_is_read(tmp_path, options):
    """The last message was written 200 years later, for which no disk is large enough."""
    late = ("/odom", 200 * 365 * 86_400_000, odometry(BEGIN_NS, 0))
    bag = write_bag(tmp_path / "bag", [*drive(5), late])
    said, steps = [], []
    found = import_recordings(
        [bag], tmp_path / "run", options,
        on_warning=lambda path, text: said.append((path, text, len(steps))),
        on_step=lambda: steps.append(1),
    )  # fmt: skip
    assert next(found).written.steps == 5
    ((path, text, before),) = said
    assert (path, before) == (bag, 0)
    assert "before it is packed" in text


def test_a_root_that_cannot_be_made_is_one_line(tmp_path, options, capsys):
    bag = write_bag(tmp_path / "bag", drive(3))
    words = ["data", "import", str(bag), "--robot", str(options.robot), "--root"]
    assert main([*words, str(options.robot)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "robot.yaml/store: Not a directory; expected a folder" in line


def test_bags_that_overlap_are_refused_and_those_that_follow_are_taken(tmp_path, options, capsys):
    later = [(topic, at + 3000, msg) for topic, at, msg in drive(20)]
    write_bag(tmp_path / "bags" / "a", drive(20))
    write_bag(tmp_path / "bags" / "b", [m for m in later if m[0] != "/cmd_vel"] + later[2::3])
    write_bag(tmp_path / "same", list(drive(30))[30:])
    words = ["data", "import", "--robot", str(options.robot), "--root", str(tmp_path / "run")]
    assert main([*words, str(tmp_path / "bags"), str(tmp_path / "same")]) == 2
    said = capsys.readouterr().err
    assert "were recorded at the same time" in said
    assert not (tmp_path / "run").exists()
    assert main([*words, str(tmp_path / "bags")]) == 0


@pytest.mark.ros
@pytest.mark.filterwarnings("ignore:module 'sre_:DeprecationWarning")  # rosidl's parser
def test_messages_that_ros_itself_wrote_give_the_same_steps(tmp_path, options):
    pytest.importorskip("rclpy", reason="needs ROS 2 (rclpy)")
    ours = write_bag(tmp_path / "ours", drive(12))
    theirs = write_bag(tmp_path / "theirs", drive(12), serialize=written_by_ros)
    for got, was in zip(steps_of(theirs, options), steps_of(ours, options), strict=True):
        assert (got.obs["image"] == was.obs["image"]).all()
        assert (got.obs["odometry"] == was.obs["odometry"]).all()
        assert (got.action == was.action).all()
        assert got.stamp_ns == was.stamp_ns


def test_a_bag_is_stored_with_the_codec_of_the_robot_file(tmp_path, options):
    bag = write_bag(tmp_path / "bag", drive(12))
    text = yaml.safe_load(ROBOT)
    [camera] = [name for name, said in text["observations"].items() if "Image" in str(said)]
    text["observations"][camera]["codec"] = "jpeg"
    coded = tmp_path / "coded.yaml"
    coded.write_text(yaml.safe_dump(text))
    found = []
    for robot in (options.robot, coded):
        root = tmp_path / robot.stem
        assert main(["data", "import", str(bag), "--robot", str(robot), "--root", str(root)]) == 0
        [path] = (root / "store").rglob("*.mcap")
        found.append(decode_chunk(path.read_bytes()))
    (plain, lossless), (meta, pictures) = found
    assert (plain.codecs, meta.codecs) == ({}, {camera: "jpeg"})
    assert plain.session != meta.session  # they are different recordings
    for a, b in zip(lossless, pictures, strict=True):
        np.testing.assert_allclose(a.obs[camera].astype(int), b.obs[camera], atol=4)
    # what is not said does not change what a file means: old imports stay known
    assert "codec" not in RobotFile.load(options.robot).model_dump_json()


@pytest.mark.parametrize(
    ("codec", "size", "save", "kept"),
    [
        ("jpeg", 16, {}, True),
        ("auto", 16, {}, True),
        ("zstd", 16, {}, False),
        ("jpeg", 8, {}, False),  # it is reduced
        ("jpeg", 16, {"progressive": True}, False),  # more than a chunk takes
    ],
)
def test_pictures_of_the_wanted_size_are_stored_as_they_are(
    codec, size, save, kept, tmp_path, options
):
    camera = f"CompressedImage, codec: {codec}, topic: camera/image_raw/compressed, height: {size}"
    robot = ROBOT.replace("Image, topic: camera/image_raw, height: 8", camera)
    options.robot.write_text(robot.replace("width: 8", f"width: {size}"))
    messages, pictures = [], []
    for topic, at, msg in drive(6):
        if topic == "/camera/image_raw":
            noise = np.random.default_rng(at).integers(0, 256, (16, 16, 3), np.uint8)
            msg.height = msg.width = 16
            msg.data = noise.ravel()
            msg = compressed(msg, "jpeg", **save)
            pictures.append(msg.data.tobytes())
            topic += "/compressed"
        messages.append((topic, at, msg))
    bag = write_bag(tmp_path / "bag", messages)
    root = str(tmp_path / "run")
    assert main(["data", "import", str(bag), "--robot", str(options.robot), "--root", root]) == 0
    [path] = Path(root, "store").rglob("*.mcap")
    meta, steps = decode_chunk(path.read_bytes())
    assert bool(meta.codecs) == (kept or codec == "jpeg")
    assert len(steps) == 6
    found = [
        (step.jpegs or {}).get("image") == picture
        for step, picture in zip(steps, pictures, strict=True)
    ]
    assert found == [kept] * 6

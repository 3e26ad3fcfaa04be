"""An export is whole or absent, takes what was chosen, and leaves the store as it was."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

from tests.wm_core.recordings.outgoing.conftest import ONE_VECTOR, SPEC, episode, same
from wm_core.contract.errors import RecordingError, StoreError
from wm_core.contract.inputs import RGB
from wm_core.contract.spec import Spec
from wm_core.recordings.outgoing import bags, npz
from wm_core.recordings.outgoing.choice import EpisodeNumbers, ExportChoice, choose
from wm_core.recordings.outgoing.episodes import EpisodeReader
from wm_core.recordings.outgoing.export import export_store
from wm_core.recordings.outgoing.lerobot import tables
from wm_core.recordings.outgoing.unfinished import UnfinishedFolder
from wm_core.store.ledger import LEDGER_NAME, Ledger


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def contents(folder):
    """The hash of every file of a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_what_stands_there_is_never_touched(store, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("precious")
    with pytest.raises(RecordingError, match=r"out exists already and is not overwritten"):
        export_store(store, tmp_path / "out", "npz")
    assert names_in(tmp_path / "out") == ["mine"]
    assert names_in(tmp_path) == ["out", "run"]


def test_the_store_is_only_read(store, tmp_path):
    for path in store.rglob("*.idx"):
        path.unlink()
    before = contents(store)
    for format in ("npz", "mcap", "rosbag2", "lerobot"):
        export_store(store, tmp_path / format, format)
    assert contents(store) == before


@pytest.mark.parametrize("format", ["npz", "mcap", "rosbag2", "lerobot"])
def test_a_failure_midway_leaves_nothing(format, store, tmp_path):
    def fail(steps, read, total):
        if steps == 25:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_store(store, tmp_path / "out", format, on_progress=fail)
    assert names_in(tmp_path) == ["run"]


@pytest.mark.parametrize("format", ["mcap", "lerobot"])
def test_what_a_killed_export_left_is_named_and_removed_by_the_next(format, store, tmp_path):
    script = """
import sys, time
from pathlib import Path
from wm_core.recordings.outgoing.export import export_store
def stop(steps, read, total):
    if steps == 25:
        print("writing", flush=True)
        time.sleep(600)
export_store(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], on_progress=stop)
"""
    out = tmp_path / "out"
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(store), str(out), format], stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"writing\n"
    with pytest.raises(RecordingError, match="is being written by another process"):
        export_store(store, out, format)
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert names_in(tmp_path) == ["out.unfinished", "run"]
    assert export_store(store, out, format).removed == tmp_path / "out.unfinished"
    export_store(store, tmp_path / "again", format)
    assert names_in(tmp_path) == ["again", "out", "run"]
    assert sorted(contents(out)) == sorted(contents(tmp_path / "again"))


def test_a_disk_that_is_too_small_is_refused_before_anything_is_written(store, tmp_path):
    free = 2**60  # more than any disk has
    with pytest.raises(RecordingError, match=r"about .* are needed and .* are free"):
        export_store(store, tmp_path / "out", "mcap", min_free_bytes=free)
    assert names_in(tmp_path) == ["run"]


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_no_export_left_is_not_removed(kind, store, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "precious").write_text("x")
    place = tmp_path / "out.unfinished"
    if kind == "folder":
        (tmp_path / "mine").rename(place)
    elif kind == "link":
        place.symlink_to(tmp_path / "mine")
    else:
        place.write_text("precious")
    before = contents(tmp_path)
    with pytest.raises(RecordingError, match="it is none that an export left; move it away"):
        export_store(store, tmp_path / "out", "npz")
    assert contents(tmp_path) == before


def test_a_place_within_the_store_is_refused(store):
    before = contents(store)
    with pytest.raises(RecordingError, match="is within the store"):
        export_store(store, store / "robot1" / "out", "npz")
    assert contents(store) == before


@pytest.mark.parametrize("format", ["npz", "mcap", "rosbag2", "lerobot", "video"])
def test_a_file_that_cannot_grow_is_one_line_and_leaves_nothing(format, store, tmp_path):
    """A limit on the size of files stands for a full disk: both refuse a write midway."""
    script = """
import resource, sys
from wm_core.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
sys.exit(main(sys.argv[1:]))
"""
    words = ["--format", "lerobot", "--video"] if format == "video" else ["--format", format]
    done = subprocess.run(
        [sys.executable, "-c", script, "data", "export", "--store", str(store),
         "--to", str(tmp_path / "out"), *words],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.strip().splitlines()
    assert "could not be written" in line
    assert names_in(tmp_path) == ["run"]


def test_a_disk_that_fills_up_meanwhile_is_one_line(tmp_path):
    def write():
        with UnfinishedFolder(tmp_path / "out") as folder:
            (folder.path / "part").write_text("half")
            raise OSError(28, "No space left on device")

    with pytest.raises(RecordingError, match=r"No space left on device.*make room"):
        write()
    assert names_in(tmp_path) == []


@pytest.mark.parametrize(
    ("choice", "lengths"),
    [
        (ExportChoice(), [20, 9, 5]),
        (ExportChoice(order="time"), [5, 20, 9]),
        (ExportChoice(order="name"), [20, 9, 5]),
        (ExportChoice(robots=("robot2",)), [5]),
        (ExportChoice(sessions=("aaa",)), [20, 9]),
        (ExportChoice(episodes="1-"), [9, 5]),
        (ExportChoice(episodes="0,2"), [20, 5]),
        (ExportChoice(episodes="0-1", order="time"), [5, 20]),
        (ExportChoice(robots=("robot1",), episodes="1"), [9]),
        (ExportChoice(episodes="aaaaaaaa.1"), [9]),
        (ExportChoice(episodes="bbb.0, aaaaaaaa.0"), [20, 5]),
        (ExportChoice(episodes="0,bbbbbbbb.0"), [20, 5]),
    ],
)
def test_the_choice_is_exported_in_its_order(choice, lengths, store, tmp_path):
    seen = []
    found = export_store(
        store, tmp_path / "out", "npz", choice, on_progress=lambda *args: seen.append(args)
    )
    files = sorted((tmp_path / "out").glob("*.npz"))
    assert [len(np.load(path)["reward"]) for path in files] == lengths
    assert found.steps == len(seen) == sum(lengths)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (ExportChoice(robots=("robot3",)), "unknown robot in .*did you mean 'robot"),
        (ExportChoice(sessions=("f",)), "unknown session in"),
        (
            ExportChoice(robots=("robot2",), sessions=("a",)),
            "none of the sessions a is of the robots",
        ),
        (ExportChoice(episodes="3"), "there is no episode 3: the choice has 3, from 0 on"),
        (ExportChoice(episodes="1-7"), "there is no episode 7"),
        (ExportChoice(episodes="first"), "expected numbers from 0 and ranges"),
        (ExportChoice(episodes="aaaaaaaa.2"), "unknown episode in .*did you mean 'aaaaaaaa"),
        (ExportChoice(robots=("robot2",), episodes="aaaaaaaa.0"), "unknown episode in"),
        (ExportChoice(episodes="4-2"), "the range 4-2 ends before it begins"),
    ],
)
def test_a_choice_of_what_is_not_there_says_what_is(choice, message, store, tmp_path):
    with pytest.raises(RecordingError, match=message):
        export_store(store, tmp_path / "out", "npz", choice)
    assert names_in(tmp_path) == ["run"]


def test_a_folder_that_is_no_store_is_named(tmp_path):
    with pytest.raises(StoreError, match="unknown folder"):
        export_store(tmp_path / "nowhere" / "store", tmp_path / "out", "npz")
    Ledger(tmp_path / "empty" / LEDGER_NAME).close()
    with pytest.raises(RecordingError, match="holds no chunks yet"):
        export_store(tmp_path / "empty", tmp_path / "out", "npz")


def test_ranges_hold_their_ends():
    numbers = EpisodeNumbers("0-2, 5,8-")
    assert [n for n in range(11) if n in numbers] == [0, 1, 2, 5, 8, 9, 10]
    assert numbers.last is None
    assert EpisodeNumbers("3,1-2").last == 3
    assert 10**9 in EpisodeNumbers("")


def test_a_gap_ends_an_episode_and_is_counted(maker, tmp_path):
    steps = episode(SPEC, 20, seed=0)
    maker.add(steps[:8], SPEC)
    maker.add(steps[12:], SPEC, skip=4)
    ledger = Ledger(maker.root / LEDGER_NAME, read_only=True)
    reader = EpisodeReader(
        maker.root, ledger, choose(maker.root, ledger, ExportChoice()), EpisodeNumbers("")
    )
    found = [(e.first_step, list(e.steps)) for e in reader]
    ledger.close()
    assert [(first, len(run)) for first, run in found] == [(0, 8), (12, 8)]
    assert all(same(a, b) for a, b in zip(found[1][1], steps[12:], strict=True))
    assert reader.broken == 2


def test_chunks_that_are_gone_or_damaged_are_left_out_and_counted(store, tmp_path):
    files = sorted(store.glob(f"robot1/{'a' * 32}/*.mcap"))
    files[1].unlink()
    files[3].write_bytes(b"\0" * files[3].stat().st_size)
    found = export_store(store, tmp_path / "out", "mcap")
    assert dict(found.left_out) == {"gone": 7, "damaged": 7}
    assert found.steps == 34 - 14


def test_what_arrives_meanwhile_is_left_for_the_next_time(maker, store, tmp_path):
    def arrive(steps, read, total):
        if steps == 1:
            maker.add(episode(SPEC, 6, seed=9), SPEC, robot="robot2", session="b" * 32)

    assert export_store(store, tmp_path / "out", "npz", on_progress=arrive).steps == 34
    assert export_store(store, tmp_path / "later", "npz").steps == 40


@pytest.mark.parametrize("format", ["npz", "mcap", "rosbag2", "lerobot"])
def test_memory_does_not_grow_with_an_episode(format, maker, tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "_GROUP_BYTES", 1 << 17)
    monkeypatch.setattr(bags, "_BLOCK_BYTES", 1 << 17)
    monkeypatch.setattr(npz, "_IN_MEMORY_BYTES", 1 << 17)
    spec = Spec(images={"image": RGB(height=64, width=64)}, action=SPEC.action)
    maker.add(episode(spec, 1, seed=0), spec)
    export_store(maker.root, tmp_path / "first", format)  # which imports
    maker.add(episode(spec, 240, seed=0), spec, chunk=8)
    whole = 240 * spec.images["image"].recorded_bytes
    tracemalloc.start()
    export_store(maker.root, tmp_path / "out", format)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < whole / 2, f"{peak} of {whole}"


def test_two_specs_of_a_store_are_exported_by_what_most_steps_have(maker, tmp_path):
    maker.add(episode(SPEC, 4, seed=0), SPEC)
    maker.add(episode(ONE_VECTOR, 12, seed=0), ONE_VECTOR, robot="other", session="c" * 32)
    found = export_store(maker.root, tmp_path / "out", "lerobot")
    assert (found.steps, dict(found.left_out)) == (12, {"other_spec": 4})
    assert export_store(maker.root, tmp_path / "all", "npz").steps == 16


def test_the_command_line_says_what_was_written_and_refuses_the_same_place(store, tmp_path):
    command = [sys.executable, "-m", "wm_core.cli.main", "data", "export", "--format", "npz"]
    done = subprocess.run(
        [*command, "--root", str(store.parent), "--to", str(tmp_path / "out")],
        capture_output=True, text=True, env={**os.environ, "COLUMNS": "200"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 episodes, 34 steps of 2 sessions" in done.stdout
    again = subprocess.run(
        [*command, "--store", str(store), "--to", str(tmp_path / "out")],
        capture_output=True, text=True,
    )  # fmt: skip
    assert again.returncode == 2
    assert "exists already and is not overwritten" in again.stderr

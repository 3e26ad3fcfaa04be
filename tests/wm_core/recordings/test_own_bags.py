"""What went out as bags comes back as it was: pixels, numbers, flags and times."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.wm_core.recordings.outgoing.conftest import SPEC, StoreMaker, episode, same
from wm_core.cli.main import main
from wm_core.contract.errors import RecordingError
from wm_core.format.chunk import decode_chunk
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.outgoing.export import export_store
from wm_core.recordings.own_bags import open_source, recognise


@pytest.fixture
def maker(tmp_path):
    return StoreMaker(tmp_path / "run" / "store")


def imported(folder):
    """The steps in a store, session by session."""
    chunks = [decode_chunk(path.read_bytes()) for path in sorted(folder.rglob("*.mcap"))]
    sessions = {}
    for meta, steps in chunks:
        sessions.setdefault((meta.robot, meta.session), []).extend(steps)
    return [*sessions.values()]


@pytest.mark.parametrize("name", ["rosbag2", "mcap"])
def test_a_store_comes_back_from_its_bags_to_the_bit(name, maker, tmp_path):
    maker.add(episode(SPEC, 20, seed=0), SPEC)
    maker.add(episode(SPEC, 9, seed=1, begin_ns=2 * 10**18, terminal=False), SPEC)
    export_store(maker.root, tmp_path / "out", name)
    words = ["data", "import", str(tmp_path / "out"), "--root", str(tmp_path / "again")]
    assert main(words) == 0
    (steps,) = imported(tmp_path / "again" / "store")
    before = [step for part in maker.stored["robot1", "a" * 32] for step in part]
    assert len(steps) == len(before) == 29
    for got, was in zip(steps, before, strict=True):
        same(was, got)
        for field in ("reward", "is_first", "is_last", "is_terminal", "is_intervention"):
            assert getattr(got, field) == getattr(was, field)
        assert (got.is_valid, got.policy_version) == (was.is_valid, was.policy_version)
        assert (got.stamp_ns, got.period_s) == (was.stamp_ns, was.period_s)


def test_an_episode_whose_begin_is_gone_gets_a_border(maker, tmp_path):
    maker.add(episode(SPEC, 20, seed=0)[3:12], SPEC)
    export_store(maker.root, tmp_path / "out", "mcap")
    (path,) = (tmp_path / "out").glob("*.mcap")
    ((first, *_, last),) = [list(e) for e in open_source(path, ReadOptions()).episodes()]
    assert first.is_first
    assert last.is_last


def test_a_chunk_of_experience_is_known_and_sent_elsewhere(maker, tmp_path):
    maker.add(episode(SPEC, 5, seed=0), SPEC)
    (chunk,) = maker.root.rglob("*.mcap")
    assert recognise(chunk)
    with pytest.raises(RecordingError, match="wm store import"):
        open_source(chunk, ReadOptions())


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"robot": Path("robot.yaml")}, "--robot"),
        ({"rewards": False, "log_times": True}, "--no-rewards and --log-times"),
        ({"hold_s": 2.0, "namespace": "/a"}, "--namespace and --hold-s"),
        ({"image_size": "32x32", "action_low": (-1.0,)}, "--action-low and --image-size"),
        ({"from_s": 0.0, "until_s": 9.0}, "--from and --until"),
    ],
)
def test_options_that_would_do_nothing_are_refused(maker, tmp_path, options, flags):
    maker.add(episode(SPEC, 5, seed=0), SPEC)
    export_store(maker.root, tmp_path / "out", "mcap")
    (path,) = (tmp_path / "out").glob("*.mcap")
    with pytest.raises(RecordingError, match=f"read back as it was stored: leave out {flags}$"):
        open_source(path, ReadOptions(**options))
    assert open_source(path, ReadOptions(name="mine", task="other")).name == "mine"


def test_a_refused_option_is_one_line_and_leaves_no_store(maker, tmp_path, capsys):
    maker.add(episode(SPEC, 5, seed=0), SPEC)
    export_store(maker.root, tmp_path / "out", "mcap")
    words = ["data", "import", str(tmp_path / "out"), "--root", str(tmp_path / "again")]
    assert main([*words, "--no-rewards"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("leave out --no-rewards")
    assert not (tmp_path / "again").exists()


def test_an_export_that_is_cut_off_is_refused(maker, tmp_path):
    maker.add(episode(SPEC, 20, seed=0), SPEC)
    export_store(maker.root, tmp_path / "out", "rosbag2")
    (path,) = (tmp_path / "out").glob("*/*.mcap")
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(RecordingError, match=path.name):
        open_source(path.parent, ReadOptions())

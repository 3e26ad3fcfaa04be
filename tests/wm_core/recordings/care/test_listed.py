"""``wm data ls`` and ``wm data info`` say what a store holds, and touch nothing."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sqlite3

import pytest

from tests.wm_core.recordings.care.conftest import BEGIN_NS, PERIOD_NS, SESSION, changed, play
from wm_core.format.chunk import chunk_path
from wm_core.format.front import read_front
from wm_core.store.index import index_path
from wm_core.store.ledger import LEDGER_NAME, Ledger

OTHER = "a" * 32


@pytest.fixture
def two(record):
    """A rover's two episodes of 50 steps, and an arm's one of 40, in which a person acted."""
    record(play(2, 50, terminal=True), dropped={"stale": 4})
    arm = changed(play(1, 40, seed=1, version=-1), range(5, 8), is_intervention=True)
    record(arm, robot="arm", session=OTHER, task="push")


def test_each_episode_is_listed_with_what_its_steps_say(two, wm_json):
    _, (first, second, arm) = wm_json("ls")
    steps = play(2, 50, terminal=True)
    assert first["episode"] == f"{SESSION[:8]}.0"
    assert (second["number"], second["first_step"], second["steps"]) == (1, 50, 50)
    assert second["start_ns"] == BEGIN_NS + 50 * PERIOD_NS
    assert second["return"] == pytest.approx(sum(s.reward for s in steps[50:]), abs=1e-4)
    assert (second["end"], second["whole"], second["seconds"]) == ("terminal", True, 2.5)
    assert second["policy_versions"] == {"3": 50}
    assert (arm["robot"], arm["task"], arm["end"]) == ("arm", "push", "last")
    assert arm["interventions"] == 3


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["--robot", "arm"], ["aaaaaaaa.0"]),
        (["--session", SESSION[:4]], [f"{SESSION[:8]}.0", f"{SESSION[:8]}.1"]),
        (["--task", "pus"], ["aaaaaaaa.0"]),
        (["--interventions"], ["aaaaaaaa.0"]),
        (["--version", "-1"], ["aaaaaaaa.0"]),
        (["--terminal", "--since", "2026-09-21T14:13:22"], [f"{SESSION[:8]}.1"]),
        (["--until", "2026-09-21T14:13:20"], []),
        (["--min-steps", "50", "--max-return", "-1e3"], []),
        (["--since", "1h"], []),
    ],
)
def test_filters_leave_what_they_name(two, wm_json, words, found):
    _, listed = wm_json("ls", *words)
    assert [episode["episode"] for episode in listed] == found


def test_a_return_is_a_filter_too(two, wm_json):
    _, listed = wm_json("ls")
    best = max(listed, key=lambda e: e["return"])
    _, alone = wm_json("ls", "--min-return", best["return"] - 1e-6)
    assert alone == [best]


def test_the_table_names_every_episode_and_counts_them(two, wm):
    status, out, _ = wm("ls")
    assert status == 0
    assert all(name in out for name in (f"{SESSION[:8]}.1", "aaaaaaaa.0", "terminal", "none"))
    assert "3 episodes, 140 steps" in out


def test_a_long_task_is_cut_in_the_table_alone(record, wm, wm_json):
    task = "; ".join(["put the pear on the plate"] * 8)
    record(play(1, 20), task=task)
    assert wm("ls")[1].count("put the pear") == 1
    (episode,) = wm_json("ls")[1]
    assert episode["task"] == task


def test_a_missing_chunk_cuts_an_episode_in_two_and_neither_is_whole(record, root, wm_json):
    keys = record(play(1, 64), size=16)
    ledger = Ledger(root / LEDGER_NAME)
    ledger.remove(ledger.find(keys[1]).arrival)
    ledger.close()
    _, listed = wm_json("ls")
    found = [(e["first_step"], e["steps"], e["end"], e["whole"]) for e in listed]
    assert found == [(0, 16, "gap", False), (32, 32, "last", False)]


def test_an_episode_that_goes_on_is_open(record, wm_json):
    record(play(1, 64)[:40])
    _, (episode,) = wm_json("ls")
    assert (episode["end"], episode["whole"], episode["steps"]) == ("open", False, 40)


def test_a_chunk_that_is_gone_is_counted_beside_the_list(record, file_of, wm):
    keys = record(play(1, 64))
    file_of(keys[2]).unlink()
    status, out, err = wm("ls")
    assert status == 0
    assert "1 gone" in err
    assert "cut by a gap" in out


def test_nothing_is_written_and_lost_indices_are_made_in_memory(two, root, wm):
    for index in root.rglob("*.idx"):
        index.unlink()
    before = sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*"))
    assert "3 episodes" in wm("ls")[1]
    assert wm("info")[0] == wm("verify")[0] == 0
    assert sorted((p, p.stat().st_mtime_ns) for p in root.rglob("*")) == before


# ---------------------------------------------------------------------------- the data sheet


def test_the_sheet_counts_robots_policies_and_what_was_left_out(two, wm_json, root):
    _, (sheet,) = wm_json("info")
    assert (sheet["episodes"], sheet["whole_episodes"], sheet["steps"]) == (3, 3, 140)
    assert sheet["robots"]["arm"]["interventions"] == 3
    assert sheet["robots"]["rover"]["sessions"] == 1
    assert sheet["policies"] == {"-1": 40, "3": 100}
    assert sheet["left_out"] == {"stale": 4}
    assert sheet["tasks"] == {"dot": 100, "push": 40}
    assert sheet["hours"] == pytest.approx(140 * 0.05 / 3600)
    files = list(root.rglob("*.mcap"))
    assert (sheet["chunks"], sheet["bytes"]) == (len(files), sum(f.stat().st_size for f in files))
    assert sheet["specs"][0]["vectors"]["joints"]["size"] == 2
    assert sheet["tools"] == {"wm_core": len(files)}


def test_the_hash_names_the_set_of_chunks_whatever_their_order(record, tmp_path, wm_json, root):
    steps, other = play(2, 50), tmp_path / "other"
    record(steps)
    record(play(1, 20, seed=5), session=OTHER)
    record(play(1, 20, seed=5), session=OTHER, to=other)
    record(steps, to=other)
    _, (one,) = wm_json("info")
    _, (two,) = wm_json("info", root=other)
    assert one["sha256"] == two["sha256"]
    lines = sorted(
        f"{p.parts[-3]} {p.parts[-2]} {p.stem} {hashlib.sha256(p.read_bytes()).hexdigest()}\n"
        for p in root.rglob("*.mcap")
    )
    assert one["sha256"] == hashlib.sha256("".join(lines).encode()).hexdigest()
    record(play(1, 16, seed=6), session="b" * 32)
    assert wm_json("info")[1][0]["sha256"] != one["sha256"]


def test_the_sheet_is_written_as_a_page_or_as_json(two, wm, tmp_path):
    page, facts = tmp_path / "deep" / "sheet.md", tmp_path / "sheet.json"
    assert wm("info", "--write", page)[0] == wm("info", "--write", facts)[0] == 0
    sheet = json.loads(facts.read_text())
    assert sheet["steps"] == 140
    assert sheet["sha256"] in page.read_text()
    assert "| stale | 4 |" in page.read_text()


def test_the_front_of_a_chunk_says_what_its_steps_do(record, file_of):
    keys = record(play(1, 40), size=40)
    front = read_front(file_of(keys[0]))
    assert front.log_time.tolist() == [BEGIN_NS + i * PERIOD_NS for i in range(40)]
    assert (front.meta.steps, front.meta.task, front.library) == (40, "dot", "wm_core")


# ---------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "show"])
def test_what_is_no_store_is_said_in_one_line(verb, wm, tmp_path, two, run):
    for path, words in (
        (run.with_name("rum"), "did you mean 'run'?"),
        (tmp_path, "is no store"),
        (run / "store" / LEDGER_NAME, "is a file"),
    ):
        status, _, err = wm(verb, root=path)
        assert status == 2
        assert words in err
        assert err.count("\n") == 1


@pytest.mark.parametrize("verb", ["ls", "info", "verify"])
def test_an_empty_store_is_no_error(verb, wm, root):
    Ledger(root / LEDGER_NAME).close()
    assert wm(verb)[0] == 0


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "show"])
def test_a_bare_store_is_taken_as_its_run_folder_is(verb, two, wm, root, tmp_path):
    words = ["--to", tmp_path / "p"] if verb == "show" else []
    assert wm(verb, *words, root=root)[0] == wm(verb, *words)[0] == 0


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "show"])
def test_a_ledger_of_a_newer_version_is_refused(verb, two, wm, root):
    db = sqlite3.connect(root / LEDGER_NAME)
    db.execute("PRAGMA user_version=99")
    db.close()
    status, _, err = wm(verb)
    assert status == 2
    assert "newer program wrote it" in err


@pytest.mark.parametrize("verb", ["ls", "info", "verify", "show"])
def test_a_damaged_ledger_is_refused_with_what_to_do(verb, two, wm, root):
    (root / LEDGER_NAME).write_bytes(b"SQLite format 3\x00" + os.urandom(4096))
    for suffix in ("-wal", "-shm"):
        (root / (LEDGER_NAME + suffix)).unlink(missing_ok=True)
    status, _, err = wm(verb)
    assert status == 2
    assert "wm store rebuild" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["ls", "--robot", "rovr"], "did you mean 'rover'?"),
        (["ls", "--session", "zzz"], "unknown session"),
        (["ls", "--since", "yesterday"], "--since 'yesterday': expected a date"),
        (["verify", "--robot", "rovr"], "did you mean 'rover'?"),
        (["show", f"{SESSION[:8]}.7"], "unknown episode"),
        (["show", "lst"], "did you mean 'last'?"),
        (["lst"], "did you mean 'ls'?"),
    ],
)
def test_a_name_that_matches_nothing_brings_the_nearest(two, wm, words, said):
    status, _, err = wm(*words)
    assert status == 2
    assert said in err


def test_a_store_on_a_disk_that_cannot_be_written_to_is_looked_at_all_the_same(
    two, root, run, wm, tmp_path
):
    copy = tmp_path / "stick"
    shutil.copytree(run, copy)
    for path in [*copy.rglob("*"), copy]:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        for verb in ("ls", "info", "verify"):
            assert wm(verb, root=copy)[0] == 0
    finally:
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755)


def test_an_index_outlives_its_chunk_without_making_an_episode(record, root, wm_json):
    (key,) = record(play(1, 16))
    chunk_path(root, key).unlink()
    assert index_path(root, key).exists()
    assert wm_json("ls")[1] == []

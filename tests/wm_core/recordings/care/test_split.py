"""``wm data split`` draws the same subsets on any machine, and makes stores of them."""

from __future__ import annotations

import json
import os
import shutil
from itertools import pairwise

import numpy as np
import pytest

from tests.wm_core.recordings.care.conftest import SESSION, changed, play
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.recordings.care import part_store
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store

OTHER = "a" * 32


def split_file(path):
    return json.loads(path.read_text())


def names(file, part):
    return [(e["robot"], e["session"], e["first_step"]) for e in file["parts"][part]["episodes"]]


def steps_of(root):
    """Every step of a store by (session, index), and how its segments are."""
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    found = {}
    for row in ledger.since(0):
        meta, steps = decode_chunk(chunk_path(root, row.key).read_bytes())
        found |= {(meta.session, meta.first_step + i): s for i, s in enumerate(steps)}
    ledger.close()
    return found


@pytest.fixture
def ten(record):
    """Ten episodes of 23 steps in chunks of 16: hardly a chunk is of one episode."""
    steps = play(10, 23)
    record(steps)
    return steps


def test_the_same_seed_draws_the_same_episodes_in_another_order_of_arrival(
    record, tmp_path, wm, root
):
    steps, more = play(6, 23), play(4, 23, seed=9)
    record(steps)
    record(more, session=OTHER)
    record(more, session=OTHER, to=tmp_path / "other")
    record(steps, to=tmp_path / "other")
    for seed, name, where in (
        (1, "a", None), (1, "b", None), (1, "c", tmp_path / "other"), (2, "d", None),
    ):  # fmt: skip
        file = tmp_path / f"{name}.json"
        assert wm("split", "--seed", seed, "--write", file, root=where)[0] == 0
    a, b, c, d = ((tmp_path / f"{name}.json").read_bytes() for name in "abcd")
    assert a == b == c
    assert names(json.loads(a), "validation") != names(json.loads(d), "validation")


def test_the_draw_is_the_one_that_was_published(ten, tmp_path, wm):
    """The rule is fixed for good: whoever has the seed has the subset."""
    file = tmp_path / "s.json"
    wm("split", "--seed", 3, "--share", 0.3, "--write", file)
    import hashlib

    order = sorted(
        range(10),
        key=lambda i: hashlib.sha256(f"3 rover {SESSION} {23 * i}".encode()).hexdigest(),
    )
    assert names(split_file(file), "validation") == [
        ("rover", SESSION, 23 * i) for i in sorted(order[:3])
    ]
    assert len(names(split_file(file), "train")) == 7


def test_a_part_holds_its_steps_bit_for_bit_and_no_other(ten, tmp_path, wm, root):
    file, to = tmp_path / "s.json", tmp_path / "parts"
    assert wm("split", "--share", 0.4, "--write", file, "--to", to)[0] == 0
    whole = steps_of(root)
    for part in ("train", "validation"):
        wanted = {
            (session, first + i)
            for _, session, first in names(split_file(file), part)
            for i in range(23)
        }
        found = steps_of(to / part)
        assert found.keys() == wanted
        for key, step in found.items():
            assert np.array_equal(step.obs["image"], whole[key].obs["image"])
            assert (step.reward, step.stamp_ns) == (whole[key].reward, whole[key].stamp_ns)
        assert wm("verify", root=to / part)[0] == 0
    _, ls, _ = wm("ls", root=to / "train")
    assert "6 episodes, 138 steps" in ls


def test_episodes_that_follow_each_other_stay_one_run_of_steps(ten, tmp_path, wm):
    file, to = tmp_path / "s.json", tmp_path / "parts"
    wm("split", "--share", 0.4, "--write", file, "--to", to)
    firsts = [first // 23 for _, _, first in names(split_file(file), "train")]
    runs = 1 + sum(b != a + 1 for a, b in pairwise(firsts))
    store = Store(to / "train", cache_bytes=1 << 20)
    store.refresh()
    assert len(store.segments) == runs
    assert sum(segment.length for segment in store.segments) == 6 * 23
    store.close()


def test_whole_chunks_are_linked_and_share_their_bytes_on_the_disk(record, tmp_path, wm, root):
    record(play(4, 32))
    _, out, _ = wm("split", "--share", 0.25, "--to", tmp_path / "parts")
    assert "6 chunks linked, 0 copied, 0 cut" in out
    for path in (tmp_path / "parts").rglob("*.mcap"):
        assert path.stat().st_ino == (root / path.relative_to(path.parents[2])).stat().st_ino


def test_another_disk_gets_copies(record, tmp_path, wm, monkeypatch):
    record(play(4, 32))

    def no_links(*_):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(part_store.os, "link", no_links)
    _, out, _ = wm("split", "--share", 0.25, "--to", tmp_path / "parts")
    assert "0 chunks linked, 6 copied, 0 cut" in out
    assert wm("verify", root=tmp_path / "parts" / "train")[0] == 0


def test_a_part_outlives_a_change_of_the_store_it_was_made_of(record, tmp_path, wm, root):
    record(play(4, 32))
    wm("split", "--to", tmp_path / "parts")
    shutil.rmtree(root)
    assert wm("verify", root=tmp_path / "parts" / "train")[0] == 0


def test_a_subset_file_makes_the_same_parts_again(ten, record, tmp_path, wm):
    file, one, two = tmp_path / "s.json", tmp_path / "one", tmp_path / "two"
    wm("split", "--seed", 5, "--write", file, "--to", one)
    record(play(3, 23, seed=4), session=OTHER)  # what came since changes nothing
    status, out, _ = wm("split", "--from", file, "--to", two)
    assert status == 0
    assert split_file(file)["parts"]["train"]["sha256"] in out
    for part in ("train", "validation"):
        assert steps_of(one / part).keys() == steps_of(two / part).keys()


@pytest.mark.parametrize(
    ("words", "validation"),
    [
        (["--validate-robots", "arm"], {"arm"}),
        (["--validate-since", "2026-09-22"], {"late"}),
    ],
)
def test_robots_or_a_date_decide_too(record, tmp_path, wm, words, validation):
    record(play(2, 20))
    record(play(1, 20), robot="arm", session=OTHER)
    steps = changed(play(1, 20), range(20), stamp_ns=lambda s: s.stamp_ns + 86_400 * 10**9)
    record(steps, robot="late", session="b" * 32)
    assert wm("split", *words, "--write", tmp_path / "s.json")[0] == 0
    found = names(split_file(tmp_path / "s.json"), "validation")
    assert {robot for robot, _, _ in found} == validation


def test_filters_and_pieces_leave_episodes_out(record, tmp_path, wm):
    record(play(4, 20)[:70])  # the last one goes on
    record(play(2, 20), robot="arm", session=OTHER)
    wm("split", "--robot", "rover", "--write", tmp_path / "s.json")
    file = split_file(tmp_path / "s.json")
    listed = names(file, "train") + names(file, "validation")
    assert sorted(listed) == [("rover", SESSION, first) for first in (0, 20, 40)]
    assert file["filter"] == {"robot": "rover"}


# ---------------------------------------------------------------------------- bad input


def changed_by_hand(file):
    content = split_file(file)
    content["parts"]["train"]["episodes"].pop()
    file.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda f: f.write_text("{"), "is no subset file"),
        (lambda f: f.write_text("[1]"), "is no subset file"),
        (lambda f: f.write_bytes(os.urandom(500)), "is no subset file"),
        (lambda f: f.write_text('{"version": 9}'), "version 1, got 9"),
        (lambda f: f.unlink(), "cannot be read"),
        (changed_by_hand, "does not fit its hash"),
    ],
)
def test_a_bad_subset_file_is_refused_in_one_line(ten, tmp_path, wm, spoil, said):
    file = tmp_path / "s.json"
    wm("split", "--write", file)
    spoil(file)
    status, _, err = wm("split", "--from", file)
    assert status == 2
    assert said in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "flags"),
    [
        (["--share", "0.5", "--seed", "7"], "--seed and --share"),
        (["--validate-robots", "rover"], "--validate-robots"),
        (["--min-return", "3", "--terminal"], "--min-return and --terminal"),
    ],
)
def test_what_a_subset_file_says_already_is_refused_beside_it(ten, tmp_path, wm, words, flags):
    file = tmp_path / "s.json"
    wm("split", "--write", file)
    status, _, err = wm("split", "--from", file, *words)
    assert status == 2
    assert f"leave out {flags}" in err
    assert err.count("\n") == 1


def test_a_store_without_a_chunk_of_the_subset_is_refused(ten, tmp_path, wm, root):
    file = tmp_path / "s.json"
    wm("split", "--write", file)
    ledger = Ledger(root / LEDGER_NAME)
    row = ledger.since(0)[3]
    ledger.remove(row.arrival)
    ledger.close()
    status, _, err = wm("split", "--from", file)
    assert status == 2
    assert "lacks the chunk rover/" in err


def test_a_store_with_other_bytes_of_the_same_chunk_is_refused(ten, record, tmp_path, wm):
    file = tmp_path / "s.json"
    wm("split", "--write", file)
    record(play(10, 23, seed=3), to=tmp_path / "other")
    status, _, err = wm("split", "--from", file, root=tmp_path / "other")
    assert status == 2
    assert "expected sha256" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--validate-robots", "rovr"], "did you mean 'rover'?"),
        (["--validate-robots", "rover"], "train part would be empty"),
        (["--validate-since", "2040-01-01"], "validation part would be empty"),
        (["--min-return", "1e9"], "no whole episode that fits"),
        (["--validate-robots", "rover", "--validate-since", "3d"], "got both"),
        (["--validate-robots", "rover", "--share", "0.5"], "leave out --share"),
        (["--validate-since", "3d", "--seed", "4"], "leave out --seed"),
    ],
)
def test_a_rule_that_leaves_a_part_empty_is_refused(ten, wm, words, said):
    status, _, err = wm("split", *words)
    assert status == 2
    assert said in err


def test_a_folder_that_holds_something_is_left_alone(ten, tmp_path, wm):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mine").write_text("keep")
    status, _, err = wm("split", "--to", tmp_path)
    assert status == 2
    assert "is there already" in err
    assert [p.name for p in (tmp_path / "train").iterdir()] == ["mine"]


def test_a_split_whose_second_part_has_no_place_writes_nothing(ten, tmp_path, wm):
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "validation").write_text("keep")
    status, _, err = wm("split", "--to", tmp_path / "to", "--write", tmp_path / "split.json")
    assert status == 2
    assert "is there already" in err
    assert not (tmp_path / "split.json").exists()
    assert [p.name for p in (tmp_path / "to").iterdir()] == ["validation"]


def test_a_part_that_fails_takes_those_before_it_along(ten, tmp_path, wm, root):
    """A chunk of the second part alone is damaged: the first would stand there without it."""
    status, _, _ = wm("split", "--write", tmp_path / "split.json")
    assert status == 0
    parts = {p: {c["seq"] for e in f["episodes"] for c in e["chunks"]} for p, f in
             split_file(tmp_path / "split.json")["parts"].items()}  # fmt: skip
    alone = min(parts["validation"] - parts["train"])
    ledger = Ledger(root / LEDGER_NAME)
    (row,) = [row for row in ledger.since(0) if row.seq == alone]
    ledger.close()
    chunk_path(root, row.key).write_bytes(b"torn")
    status, _, err = wm("split", "--to", tmp_path / "parts")
    assert status == 2
    assert "wm data repair" in err
    assert [*(tmp_path / "parts").iterdir()] == []

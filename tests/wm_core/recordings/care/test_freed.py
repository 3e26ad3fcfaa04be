"""``wm data gc`` frees what may go, says it first, and keeps what a person showed."""

from __future__ import annotations

import fcntl
import os
import time

import pytest

from tests.wm_core.recordings.care.conftest import SESSION, changed, play
from wm_core.format.chunk import chunk_path
from wm_core.library.episode_book import EpisodeBook
from wm_core.store.index import SIDECARS
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.reconcile import reconcile
from wm_core.store.verify import verify_store

DAY_S = 86_400


def age(path, days):
    then = time.time() - days * DAY_S
    os.utime(path, (then, then), follow_symlinks=False)


def files(root):
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file())


def rows(root):
    ledger = Ledger(root / LEDGER_NAME, read_only=True)
    try:
        return ledger.since(ledger.pruned_through())
    finally:
        ledger.close()


@pytest.fixture
def shown(record):
    """Four chunks of 16 steps; a person acted in the second."""
    return record(changed(play(1, 64), range(20, 23), is_intervention=True))


@pytest.fixture
def gc(wm_json):
    """Runs it: the things that it names by kind, and what it counts."""

    def call(*words):
        status, [*items, counts] = wm_json("gc", *words)
        kinds = {}
        for item in items:
            kinds.setdefault(item["kind"], []).append(item["path"])
        return status, kinds, counts

    return call


def clutter(root, shown, age_days):
    """One of each kind of what may go, that old."""
    ledger = Ledger(root / LEDGER_NAME)
    refused = ingest(root, ledger, shown[0]._replace(seq=77), b"no chunk at all")
    assert refused.kind == "damaged"
    ledger.close()
    session = chunk_path(root, shown[0]).parent
    made = [
        session / "00000009.mcap.12345678.tmp",
        session / "00000000.idx.npz",
        root / f"{LEDGER_NAME}.damaged-1",
        root / f"{LEDGER_NAME}.before-repair-2",
    ]
    for path in made:
        path.write_bytes(b"12345")
    for path in [*made, *(root / "quarantine.d").rglob("*.refused")]:
        age(path, age_days)


def test_by_itself_it_says_what_may_go_and_changes_nothing(root, shown, gc, wm):
    clutter(root, shown, 40)
    before = files(root)
    status, kinds, counts = gc()
    assert status == 0
    assert sorted(kinds) == ["old index", "old ledger", "quarantine", "unfinished"]
    assert len(kinds["old ledger"]) == 2
    assert (counts["done"], counts["left_bytes"]) == (False, sum(r.bytes for r in rows(root)))
    assert "nothing was changed; --yes removes it" in wm("gc")[1]
    assert files(root) == before


def test_with_yes_it_goes_and_the_quarantine_has_room_again(root, shown, gc, wm):
    clutter(root, shown, 40)
    _, kinds, counts = gc("--yes")
    named = {path for paths in kinds.values() for path in paths}
    assert not any(os.path.exists(path) for path in named)
    assert counts["done"]
    assert len(list(root.rglob("*.mcap"))) == 4
    ledger = Ledger(root / LEDGER_NAME)
    assert ledger.quarantined() == (0, 0)
    ledger.close()
    assert wm("verify")[0] == 0
    assert gc()[1] == {}


def test_what_is_young_stays(root, shown, gc):
    clutter(root, shown, 0)
    assert set(gc()[1]) == {"old index"}
    assert set(gc("--aside-days", "0")[1]) == {"old index", "old ledger", "quarantine"}


def test_the_oldest_chunks_go_first_and_demonstrations_and_the_newest_stay(root, shown, gc, wm):
    sizes = [row.bytes for row in rows(root)]
    bound = sum(sizes) - 1
    _, kinds, counts = gc("--max-bytes", bound)
    assert kinds["chunk"] == [str(chunk_path(root, shown[0]))]
    assert (counts["steps"], counts["kept_chunks"]) == (16, 0)
    _, kinds, counts = gc("--max-bytes", "1", "--yes")
    assert kinds["chunk"] == [str(chunk_path(root, shown[i])) for i in (0, 2)]
    assert (counts["steps"], counts["kept_chunks"]) == (32, 1)
    assert {row.key for row in rows(root)} == {shown[1], shown[3]}
    assert chunk_path(root, shown[1]).exists()
    assert not list(root.rglob("00000002.*"))
    assert wm("verify")[0] == 0
    assert gc("--max-bytes", "1")[1] == {}


def test_evicted_chunks_are_evicted_for_everybody_and_lost_for_nobody(root, shown, gc):
    store = Store(root, cache_bytes=1 << 20)
    store.refresh()
    gc("--max-bytes", "1", "--yes")
    store.refresh()
    assert sum(segment.length for segment in store.segments) == 32
    assert store.left_out.total() == 0
    store.close()
    assert verify_store(root).damaged == []
    ledger = Ledger(root / LEDGER_NAME)
    found = reconcile(root, ledger)
    assert found.missing == found.adopted == 0
    ledger.close()
    fresh = Store(root, cache_bytes=1 << 20)
    fresh.refresh()
    assert sorted(segment.first_index for segment in fresh.segments) == [16, 48]
    fresh.close()


def test_an_open_store_and_an_open_page_count_no_chunk_twice(root, record, shown, gc):
    store, book = Store(root, cache_bytes=1 << 20), EpisodeBook(root)
    store.refresh()
    book.refresh()
    before = store.steps, book.steps, book.chunks, book.nbytes
    end_row = store.end_row
    assert before[:3] == (64, 64, 4)
    gc("--max-bytes", "1", "--yes")
    assert store.refresh() == 0
    book.refresh()
    assert (store.steps, book.steps, book.chunks, book.nbytes) == before
    assert store.arrival == 5  # that the chunk with the person has now
    assert store.end_row == end_row  # it is not learnt from as if it were new
    assert [(s.first_index, s.length) for s in store.segments] == [(16, 16), (48, 16)]
    assert [(e.first_step, e.steps) for e in book.episodes()] == [(0, 64)]
    record(play(1, 16), session="a" * 32)
    gc("--max-bytes", "1", "--no-keep-demonstrations", "--yes")
    assert store.refresh() == 16
    assert [(s.session, s.length) for s in store.segments] == [(1, 16)]
    store.close()
    book.close()


def test_a_damaged_chunk_that_is_kept_stays_marked_and_is_counted_once(root, record, shown, gc):
    record(play(1, 32), robot="arm", session="a" * 32)
    path = chunk_path(root, shown[1])
    for kind in ("mcap", *SIDECARS):
        path.with_suffix(f".{kind}").unlink(missing_ok=True)
    ledger = Ledger(root / LEDGER_NAME)
    ledger.mark_damaged(ledger.find(shown[1]).arrival, "its file is gone")
    store, book = Store(root, cache_bytes=1 << 20), EpisodeBook(root)
    store.refresh()
    book.refresh()
    before = store.steps, dict(store.left_out), dict(book.unread)
    assert before == (96, {"gone": 1}, {"gone": 1})
    gc("--max-bytes", "1", "--keep-robots", "rover", "--yes")
    moved = ledger.find(shown[1]).arrival
    assert moved > 6
    assert ledger.damaged() == {moved: "its file is gone"}
    store.refresh()
    book.refresh()
    assert (store.steps, dict(store.left_out), dict(book.unread)) == before
    for opened in (ledger, store, book):
        opened.close()


def test_demonstrations_go_only_where_that_is_said(root, shown, gc):
    _, kinds, _ = gc("--max-bytes", "1", "--no-keep-demonstrations", "--yes")
    assert len(kinds["chunk"]) == 3
    assert [row.key for row in rows(root)] == [shown[3]]


def test_chunks_of_an_age_go_and_those_of_a_robot_stay(record, root, gc):
    record(play(1, 48), robot="arm", session="a" * 32)
    record(play(1, 48))
    ledger = Ledger(root / LEDGER_NAME)
    with ledger.writing():
        for row in ledger.since(0):
            ledger.remove(row.arrival)
            old = row.received_ns - (6 - row.arrival) * 10 * DAY_S * 10**9
            ledger.restore([row._replace(received_ns=old)], 0)
    ledger.close()
    assert len(gc("--older-than", "25d")[1]["chunk"]) == 3
    _, kinds, counts = gc("--older-than", "15d", "--keep-robots", "arm")
    assert [path.split("/")[-3] for path in kinds["chunk"]] == ["rover"]
    assert counts["kept_chunks"] == 3
    assert gc("--older-than", "80d")[1] == {}


@pytest.mark.parametrize("lock", ["service.lock", "run.lock"])
def test_no_chunk_goes_while_somebody_works_there(root, run, shown, wm, lock):
    with (run / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        status, _, err = wm("gc", "--max-bytes", "1", "--yes")
        assert status == 2
        assert "by another process; stop it first" in err
        assert wm("gc", "--max-bytes", "1")[0] == 0
        assert wm("gc", "--yes")[0] == 0  # beside a service old clutter may go
    assert len(rows(root)) == 4


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--older-than", "soon"], "--older-than 'soon': expected a time such as 30d"),
        (["--keep-robots", "rovr"], "holds the robots rover"),
    ],
)
def test_a_bad_rule_is_refused_in_one_line(shown, wm, words, said):
    status, _, err = wm("gc", *words)
    assert status == 2
    assert said in err


def test_sizes_are_taken_as_people_write_them(shown, gc):
    assert gc("--max-bytes", "5e9")[1] == {}


def test_a_file_that_cannot_be_removed_is_named(root, shown, wm, monkeypatch):
    from pathlib import Path

    whole = Path.unlink

    def refuse(path, *args, **options):
        if path.name.startswith("00000002"):
            raise PermissionError(1, "Operation not permitted")
        whole(path, *args, **options)

    monkeypatch.setattr(Path, "unlink", refuse)
    status, out, _ = wm("gc", "--max-bytes", "1", "--yes")
    assert status == 1
    assert "not removed" in out
    assert SESSION in out

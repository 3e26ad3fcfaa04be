"""Sessions that have sent everything leave one line, and every number of theirs stays known."""

from __future__ import annotations

import os

import pytest

from wm_core.contract.files import write_durably
from wm_core.format.chunk import chunk_path
from wm_core.link.audit import audit
from wm_core.link.robot.finished import FINISHED_NAME, Folded, all_finished, finish, finished_in
from wm_core.link.robot.journal import Journal, SpoolSession, sessions_in
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.spool_disk import SpoolDisk
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger


@pytest.fixture
def start(tmp_path, spec, closing):
    """Starts a spool as the next start of the robot does, and waits until it has looked."""

    def start(**settings):
        settings = SpoolSettings(**{"seal_steps": 4, "seal_s": 60.0} | settings)
        spool = closing(Spool(tmp_path, robot="rover", task="", spec=spec, settings=settings))
        assert spool.flush(60.0)
        return spool

    return start


def journal_of(number, **changes):
    fields = {"robot": "rover", "session": f"{number:032x}", "created_ns": number, "next_seq": 1}
    return Journal(**fields | changes)


def ended(folder, number, **changes):
    """Lays the folder of a session that sent all."""
    journal = journal_of(number, **changes)
    session = SpoolSession(folder / "rover" / journal.session)
    session.write_journal(journal)
    (session.path / "lock").touch()
    return session, journal


def test_a_session_that_sent_everything_leaves_a_line(start, tmp_path, make_step):
    first = start()
    for i in range(9):
        first.put(make_step(i))
    first.close()
    session = SpoolSession(tmp_path / "rover" / first.session)
    start().close()
    assert len(session.waiting()) == 3  # they are still to be sent
    for chunk in session.waiting():
        chunk.path.unlink()
    journal = session.journal()
    assert start().counters()["sessions_finished"] >= 1
    assert not session.path.exists()
    assert all_finished(tmp_path)["rover", first.session] == journal
    assert (journal.next_seq, journal.next_step, journal.closed) == (3, 9, True)


def test_a_session_without_a_step_leaves_nothing(start, tmp_path):
    start().close()
    start().close()
    (left,) = sessions_in(tmp_path)
    assert not (tmp_path / "rover" / FINISHED_NAME).exists()
    assert left.journal().closed


@pytest.mark.parametrize(
    "kept",
    [
        "00000000.mcap",
        "sent/00000000.mcap",
        "refused/00000000.mcap",
        "refused/note.txt",
        "mine.txt",
    ],
)
def test_a_session_with_anything_left_stays(start, tmp_path, kept):
    session, journal = ended(tmp_path, 1)
    write_durably(session.path / kept, b"to be kept")
    start()
    assert (session.path / kept).read_bytes() == b"to be kept"
    assert session.journal() == journal
    assert all_finished(tmp_path) == {}


def test_a_session_that_runs_stays(start, tmp_path):
    session, _ = ended(tmp_path, 1)
    lock = session.try_lock()
    try:
        start()
        assert session.path.exists()
    finally:
        os.close(lock)
    start()
    assert not session.path.exists()


def test_a_kill_between_line_and_removal_does_not_count_twice(start, tmp_path):
    session, journal = ended(tmp_path, 1, next_step=64)
    assert finish([(session, journal)]) == 1
    session, journal = ended(tmp_path, 1, next_step=64)  # as if it had not been removed
    start()
    assert finished_in(tmp_path, "rover") == ([journal], Folded())


def test_a_torn_line_costs_no_other(start, tmp_path):
    first, journal = ended(tmp_path, 1)
    finish([(first, journal)])
    lines = tmp_path / "rover" / FINISHED_NAME
    lines.write_bytes(lines.read_bytes() + b'{"version":1,"robot":"ro')
    second, later = ended(tmp_path, 2)
    finish([(second, later)])
    assert finished_in(tmp_path, "rover")[0] == [journal, later]


def test_lines_are_bounded_and_their_sums_stay(tmp_path):
    lines = tmp_path / "rover" / FINISHED_NAME
    for number in range(60):
        dropped = {"spool_full": 3} if number % 2 else {}
        found = ended(tmp_path, number, next_seq=2, next_step=100, dropped_steps=dropped)
        finish([found], max_bytes=2000)
        assert lines.stat().st_size <= 2000
    journals, folded = finished_in(tmp_path, "rover")
    assert journals[-1].session == f"{59:032x}"
    assert folded.sessions + len(journals) == 60
    assert folded.chunks + 2 * len(journals) == 120
    assert folded.steps + 100 * len(journals) == 6000
    kept = sum(journal.dropped_steps.get("spool_full", 0) for journal in journals)
    assert folded.dropped_steps["spool_full"] + kept == 90


def test_an_audit_knows_sessions_that_were_removed(start, tmp_path, make_chunk):
    """One chunk stored, one lost on the way: the number that only the line knows."""
    session = "7" * 32
    key, data, _ = make_chunk(0, session=session)
    store = tmp_path / "store"
    ledger = Ledger(store / LEDGER_NAME)
    assert ingest(store, ledger, key, data).kind == "stored"
    ledger.close()
    fields = {"next_seq": 3, "dropped_steps": {"spool_full": 3, "queue_full": 5}}
    journal = Journal(robot="rover", session=session, closed=True, **fields)
    journal = journal.model_copy(update={"dropped_chunks": {"spool_full": [(2, 2)]}})
    spool = tmp_path / "spool"
    SpoolSession(chunk_path(spool, key).parent).write_journal(journal)
    before = audit(store, [spool]).sessions[0]
    assert finish([(SpoolSession(chunk_path(spool, key).parent), journal)]) == 1
    assert audit(store, [spool]).sessions == (before,)
    assert (before.sent, before.lost, before.dropped) == (3, (1, 2), {2: "spool_full"})
    assert before.steps_dropped == {"spool_full": 3, "queue_full": 5}


def test_a_chunk_that_arrived_though_it_gave_way_is_not_counted_as_lost(tmp_path, make_chunk):
    """Its upload was under way when the spool made room."""
    key, data, _ = make_chunk(0, session="7" * 32, steps=3)
    store = tmp_path / "store"
    ledger = Ledger(store / LEDGER_NAME)
    ingest(store, ledger, key, data)
    ledger.close()
    journal = Journal(robot="rover", session=key.session, next_seq=2)
    journal = journal.with_dropped("spool_full", 0, 3).with_dropped("spool_full", 1, 4)
    SpoolSession(chunk_path(tmp_path / "spool", key).parent).write_journal(journal)
    (found,) = audit(store, [tmp_path / "spool"]).sessions
    assert (found.acked, found.lost) == ((0,), (1,))
    assert found.steps_dropped == {"spool_full": 4}


def test_many_sessions_are_finished_at_one_start(start, tmp_path):
    for number in range(200):
        folder = tmp_path / "rover" / f"{number:032x}"
        folder.mkdir(parents=True)
        (folder / "session.json").write_text(journal_of(number).model_dump_json())
    spool = start()
    assert spool.counters()["sessions_finished"] == 200
    assert [s.session for s in sessions_in(tmp_path)] == [spool.session]
    assert len(all_finished(tmp_path)) == 200


def test_steps_need_not_wait_until_all_sessions_are_finished(tmp_path):
    """The writer records what has come in between, a few sessions at a time."""
    for number in range(100):
        ended(tmp_path, number)
    left = []
    disk = SpoolDisk(
        tmp_path,
        journal_of(200),
        settings=SpoolSettings(),
        on_drop=lambda reason, steps: None,
        on_count=lambda name, n: None,
    )
    disk.begin(lambda: left.append(len(sessions_in(tmp_path, "rover"))))
    disk.end()
    assert len(left) >= 3
    assert left == sorted(left, reverse=True)
    assert left[0] > 50


def test_order_of_sessions_does_not_depend_on_the_clock(start, tmp_path, make_step):
    """The clock of the second start is years behind that of the first."""
    session, _ = ended(tmp_path, 1, created_ns=2**62)
    write_durably(session.path / "00000000.mcap", b"the oldest")
    second = start()
    created_ns = SpoolSession(tmp_path / "rover" / second.session).journal().created_ns
    assert created_ns == 2**62 + 1

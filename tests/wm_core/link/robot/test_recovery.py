"""What a process left behind is sealed once, under its own number, and never over another file."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wm_core.contract.files import write_durably
from wm_core.format.chunk import ChunkMeta, chunk_path, decode_chunk, encode_step, join_steps
from wm_core.link.robot.journal import Journal, SpoolSession
from wm_core.link.robot.open_log import LOG_NAME, OpenLog, read_log
from wm_core.link.robot.spool import Spool, SpoolSettings

ONE_SEAL = Path(__file__).with_name("one_seal.py")


@pytest.fixture
def open_spool(tmp_path, spec, closing):
    def make(**settings):
        settings = SpoolSettings(**{"seal_steps": 4, "seal_s": 60.0} | settings)
        spool = Spool(tmp_path, robot="rover", task="seek", spec=spec, settings=settings)
        spool = closing(spool)
        assert spool.flush(60.0)  # what earlier sessions left is finished
        return spool

    return make


@pytest.fixture
def left(tmp_path, spec, make_step):
    """Leaves a session as a killed process does: (folder, steps, meta of its open chunk)."""

    def leave(*, seq=0, steps=3, ended=False, journal=True):
        session = "a" * 32
        folder = tmp_path / "rover" / session
        meta = ChunkMeta(
            robot="rover", session=session, seq=seq, spec=spec, first_step=10 * seq, steps=steps
        )
        encoded = [encode_step(make_step(i), spec) for i in range(steps)]
        log = OpenLog(folder / LOG_NAME, sync_s=0.5)
        log.begin(meta)
        log.append(encoded)
        if ended:
            log.end(meta)
        if journal:
            found = Journal(robot="rover", session=session, created_ns=5, next_seq=seq)
            SpoolSession(folder).write_journal(found)
        return folder, encoded, meta

    return leave


def waiting(folder):
    return {w.key.seq: w.path.read_bytes() for w in SpoolSession(folder).waiting()}


def rewards(data):
    return [step.reward for step in decode_chunk(data)[1]]


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("journal", [False, True])
def test_steps_that_were_written_ahead_become_a_chunk_of_their_number(
    left, open_spool, ended, journal
):
    folder, steps, meta = left(seq=3, ended=ended, journal=journal)
    spool = open_spool()
    assert waiting(folder) == {3: join_steps(steps, meta)}
    assert not (folder / LOG_NAME).exists()
    assert SpoolSession(folder).journal().next_seq == 4
    assert SpoolSession(folder).journal().next_step == 33
    counts = spool.counters()
    assert (counts["logs_recovered"], counts["steps_recovered"]) == (1, 3)
    open_spool()
    assert waiting(folder) == {3: join_steps(steps, meta)}  # and no second time


@pytest.mark.parametrize("gone", ["waits", "acknowledged", "dropped"])
def test_steps_of_a_sealed_chunk_are_not_sealed_again(left, open_spool, gone):
    folder, steps, meta = left(seq=3)
    session = SpoolSession(folder)
    sealed = join_steps(steps[:2], meta.model_copy(update={"steps": 2}))
    if gone == "waits":  # and the journal does not say so yet
        write_durably(chunk_path(folder.parents[1], meta.key), sealed)
    elif gone == "acknowledged":
        session.write_journal(session.journal().model_copy(update={"next_seq": 4}))
    else:
        session.write_journal(session.journal().with_dropped("disk_full", 3, 3))
    open_spool()
    assert waiting(folder) == ({3: sealed} if gone == "waits" else {})
    assert not (folder / LOG_NAME).exists()


def test_an_unfinished_file_never_replaces_a_sealed_one(open_spool, make_chunk, tmp_path):
    """The disk refused between writing and naming; the number was given to a later chunk."""
    key, sealed, _ = make_chunk(0, session="b" * 32)
    path = chunk_path(tmp_path, key)
    write_durably(path, sealed)
    _, other, _ = make_chunk(0, session="b" * 32, salt=1)
    path.with_name(f"{path.name}.01234567.tmp").write_bytes(other)
    spool = open_spool()
    assert waiting(path.parent) == {0: sealed}
    assert set(os.listdir(path.parent)) == {"session.json", "00000000.mcap", "lock"}
    assert spool.counters()["tmp_removed"] == 1


def test_an_unfinished_file_of_a_number_that_was_counted_as_dropped_goes(
    open_spool, make_chunk, tmp_path
):
    key, data, _ = make_chunk(2, session="b" * 32)
    session = SpoolSession(chunk_path(tmp_path, key).parent)
    journal = Journal(robot="rover", session=key.session, next_seq=3)
    session.write_journal(journal.with_dropped("disk_full", 2, 3))
    (session.path / "00000002.mcap.01234567.tmp").write_bytes(data)
    spool = open_spool()
    assert spool.counters()["tmp_removed"] == 1
    assert waiting(session.path) == {}


def test_a_chunk_that_was_giving_way_is_counted_before_it_goes(open_spool, make_chunk, tmp_path):
    key, data, _ = make_chunk(1, session="b" * 32, steps=3)
    _, later, _ = make_chunk(2, session="b" * 32, steps=3)
    session = SpoolSession(chunk_path(tmp_path, key).parent)
    session.write_journal(Journal(robot="rover", session=key.session, next_seq=3))
    (session.path / "00000001.dropped").write_bytes(data)
    write_durably(session.path / "00000002.mcap", later)
    open_spool()
    open_spool()
    journal = session.journal()
    assert journal.dropped_seqs() == {1: "interrupted"}
    assert journal.dropped_steps == {"interrupted": 3}
    assert not (session.path / "00000001.dropped").exists()
    assert list(waiting(session.path)) == [2]


def _of_2_to_the_63(folder):
    fields = {"robot": "rover", "session": folder.name, "next_seq": 2**63, "next_step": 2**63}
    (folder / "session.json").write_text(json.dumps(fields))


DAMAGE = {
    "empty": lambda folder: (folder / "session.json").write_bytes(b""),
    "torn": lambda folder: (folder / "session.json").write_bytes(b'{"version":1,"robot":"rov'),
    "not text": lambda folder: (folder / "session.json").write_bytes(b"\xff\xfe\0" * 100),
    "deep": lambda folder: (folder / "session.json").write_bytes(b"[" * 100_000),
    "numbers": _of_2_to_the_63,
    "negative": lambda folder: (folder / "session.json").write_text(
        json.dumps({"robot": "rover", "session": folder.name, "next_seq": -5})
    ),
    "endless ranges": lambda folder: (folder / "session.json").write_text(
        json.dumps(
            {
                "robot": "rover",
                "session": folder.name,
                "dropped_chunks": {"spool_full": [[0, 2**62]]},
            }
        )
    ),
    "of another session": lambda folder: (folder / "session.json").write_text(
        json.dumps({"robot": "rover", "session": "c" * 32, "next_seq": 9})
    ),
    "a pipe": lambda folder: os.mkfifo(folder / "session.json"),
    "a link": lambda folder: (folder / "session.json").symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_journal_loses_no_chunk_and_no_number(left, open_spool, make_chunk, damage):
    folder, steps, meta = left(seq=3, journal=False)
    _, data, _ = make_chunk(1, session=folder.name)
    write_durably(folder / "00000001.mcap", data)
    DAMAGE[damage](folder)
    spool = open_spool()
    assert waiting(folder) == {1: data, 3: join_steps(steps, meta)}
    assert SpoolSession(folder).journal().next_seq == 4
    assert spool.counters()["journals_damaged"] == 1
    assert os.path.lexists(folder / "session.json.damaged")


def test_a_journal_of_a_newer_version_is_left_as_it_is(left, open_spool, make_chunk):
    folder, _, _ = left()
    _, data, _ = make_chunk(1, session=folder.name)
    write_durably(folder / "00000001.mcap", data)
    text = json.dumps({"version": 2, "what": "it means"})
    (folder / "session.json").write_text(text)
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    open_spool()
    after = {p.name: p.read_bytes() for p in folder.iterdir()}
    assert after == before | {"lock": b""}
    assert list(waiting(folder)) == [1]  # and it may be sent


def test_a_damaged_log_is_counted_and_costs_nothing_else(left, open_spool, make_chunk):
    folder, _, _ = left(seq=3)
    _, data, _ = make_chunk(1, session=folder.name)
    write_durably(folder / "00000001.mcap", data)
    log = bytearray((folder / LOG_NAME).read_bytes())
    log[8:12] = (9).to_bytes(4, "little")  # says another number than its meta
    (folder / LOG_NAME).write_bytes(log)
    open_spool()
    assert waiting(folder) == {1: data}
    assert not (folder / LOG_NAME).exists()


def test_a_session_folder_with_files_is_never_used_again(left, tmp_path, spec):
    folder, _, _ = left(journal=False)
    with pytest.raises(Exception, match="used before"):
        Spool(tmp_path, robot="rover", task="", spec=spec, session=folder.name)


def test_a_kill_costs_no_more_than_what_was_not_written(tmp_path, spec, open_spool, wait_until):
    """The chunk would be sealed after an hour; what its process had written ahead comes back."""
    args = [sys.executable, ONE_SEAL, "put", tmp_path, "--steps", "100000", "--every-s", "0.002"]
    process = subprocess.Popen([*map(str, args), "--seal-steps", "4096"], stdout=subprocess.PIPE)
    try:
        (line,) = [process.stdout.readline()]
        session = SpoolSession(tmp_path / "rover" / line.decode().strip())
        wait_until(lambda: (session.path / LOG_NAME).is_file())
        wait_until(lambda: (session.path / LOG_NAME).stat().st_size > 20_000)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    written = len(read_log((session.path / LOG_NAME).read_bytes()).steps)
    assert not session.waiting()
    spool = open_spool()
    (data,) = waiting(session.path).values()
    assert rewards(data) == list(range(len(rewards(data))))
    assert len(rewards(data)) == spool.counters()["steps_recovered"] == written > 20


@pytest.mark.parametrize("hold", ["rover", "session"])
def test_a_folder_that_vanishes_costs_no_later_chunk(open_spool, tmp_path, make_step, hold):
    spool = open_spool()
    spool.put(make_step(0))
    spool.flush(60.0)
    removed = tmp_path / "rover" if hold == "rover" else tmp_path / "rover" / spool.session
    subprocess.run(["rm", "-rf", str(removed)], check=True)
    for i in range(1, 5):
        spool.put(make_step(i))
    assert spool.flush(60.0)
    home = SpoolSession(tmp_path / "rover" / spool.session)
    assert [rewards(data) for data in waiting(home.path).values()] == [[1, 2, 3, 4]]
    assert home.journal().next_seq == 2
    assert home.try_lock() is None  # locked again, so nobody takes it for ended


@pytest.fixture
def shared_folder():
    """A folder that every user of this machine may reach."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    subprocess.run(["chmod", "-R", "u+rwX", str(folder)], check=True)
    shutil.rmtree(folder)


def test_what_another_user_owns_is_passed_over(shared_folder, make_chunk):
    """A session of root in the spool of a robot that is not: no exception, and its own is done."""
    _, data, _ = make_chunk(0, session="b" * 32)
    foreign, own = (shared_folder / "rover" / (digit * 32) for digit in "ab")
    for folder in (foreign, own):
        write_durably(folder / "00000000.mcap", data)
    (foreign / "session.json").write_text("not to be read")
    (own / "00000000.mcap").rename(own / "00000000.mcap.01234567.tmp")
    me, other = os.geteuid(), 65534
    if me == 0:
        for path in (shared_folder, own.parent, own, *own.iterdir()):
            os.chown(path, other, other)
    foreign.chmod(0)
    args = [sys.executable, "-B", ONE_SEAL, "check", shared_folder]
    args += [] if me else ["--user", other]
    done = subprocess.run([str(a) for a in args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["chunks"]["b" * 32] == {"0": [0.0, 1.0, 2.0]}
    assert said["chunks"]["a" * 32] == {}
    assert said["counts"].get("writer_faults", 0) == 0


def test_sessions_of_a_robot_that_was_renamed_are_recovered_too(left, tmp_path, spec, closing):
    folder, steps, meta = left(seq=3)
    closing(Spool(tmp_path, robot="new_name", task="", spec=spec)).flush(60.0)
    assert waiting(folder) == {3: join_steps(steps, meta)}


def test_a_session_that_was_killed_before_its_journal_stood_is_removed(open_spool, tmp_path):
    folder = tmp_path / "rover" / ("a" * 32)
    folder.mkdir(parents=True)
    (folder / "lock").touch()
    (folder / "session.json.01234567.tmp").write_bytes(b'{"version"')
    open_spool()
    assert not folder.exists()

"""A spool is looked at for what is new in it, not for all that lies there."""

from __future__ import annotations

import os

import pytest

from wm_core.contract.files import write_durably
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.link.robot.scan import SpoolScan


def lay(spool, number, *, session=0, robot="rover"):
    path = chunk_path(spool, ChunkKey(robot, f"{session:032x}", number))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"chunk")
    return path


def settle(scan):
    """Let a few minutes pass."""
    for robot in scan._robots.values():
        for folder in (robot, *robot.sessions.values()):
            folder.hot_s = folder.unsettled_s = 0.0


def paths(chunks):
    return sorted(chunk.path for chunk in chunks)


def test_each_chunk_is_news_once_when_it_comes_and_once_when_it_goes(tmp_path):
    spool = tmp_path / "spool"
    scan = SpoolScan(spool)
    assert scan.look().came == []  # there is no folder yet
    first = [
        lay(spool, n, session=s, robot=r) for r in ("arm", "rover") for s in (0, 1) for n in (0, 1)
    ]
    assert paths(scan.look().came) == sorted(first)
    assert scan.look().came == []
    later = lay(spool, 2)
    first[0].unlink()
    news = scan.look()
    assert (paths(news.came), paths(news.gone)) == ([later], [first[0]])
    for path in (first[1], first[1].parent / "x.mcap"):
        path.unlink(missing_ok=True)
    os.rmdir(first[1].parent)
    assert paths(scan.look().gone) == [first[1]]
    again = lay(spool, 5)  # in a session that was removed and came back
    assert again in paths(scan.look().came)


def test_what_is_no_chunk_is_ignored(tmp_path):
    spool, session = tmp_path, "0" * 32
    for name in ("1.txt", "x.mcap", "-1.mcap", "٣.mcap", f"{'9' * 30}.mcap", "00000001.mcap.tmp"):
        path = spool / "rover" / session / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    for path in ("rover/sent/00000001.mcap", f"Rover/{session}/00000001.mcap", "x"):
        (spool / path).parent.mkdir(parents=True, exist_ok=True)
        (spool / path).write_bytes(b"")
    assert SpoolScan(spool).look().came == []


def test_an_unreadable_session_does_not_hide_the_others(tmp_path):
    if os.geteuid() == 0:
        closed = tmp_path / "rover" / ("1" * 32)
        closed.parent.mkdir()
        os.symlink("/proc/1/nothing", closed)  # root may read everything, but not this
    else:
        closed = lay(tmp_path, 0, session=1).parent
        closed.chmod(0)
    mine = lay(tmp_path, 0)
    assert paths(SpoolScan(tmp_path).look().came) == [mine]


def test_thousands_of_quiet_sessions_cost_a_few_looks_each_time(tmp_path):
    """5,000 sessions that once cost a quarter of a processor core."""
    for number in range(5000):
        os.makedirs(tmp_path / "rover" / f"{number:032x}")
    scan = SpoolScan(tmp_path)
    scan.look()
    settle(scan)
    before = scan.stats
    for _ in range(10):
        assert scan.look().came == []
    assert scan.stats - before <= 10 * 40
    awake = lay(tmp_path, 0, session=4999)  # quiet sessions are seen too, in their turn
    found = [path for _ in range(200) for path in paths(scan.look().came)]
    assert found == [awake]
    before = scan.stats
    lay(tmp_path, 1, session=4999)
    assert len(scan.look().came) == 1  # one in which something happens, at once
    assert scan.stats - before <= 40


def test_a_look_everywhere_finds_what_came_to_a_quiet_session(tmp_path):
    for number in range(100):
        os.makedirs(tmp_path / "rover" / f"{number:032x}")
    scan = SpoolScan(tmp_path)
    scan.look()
    settle(scan)
    chunk = lay(tmp_path, 0, session=99)
    assert paths(scan.look(everywhere=True).came) == [chunk]


@pytest.mark.parametrize("number", [0, 9_999_999_999])
def test_numbers_of_any_length_that_a_key_can_have_are_read(tmp_path, number):
    path = tmp_path / "rover" / ("0" * 32) / f"{number:08d}.mcap"
    write_durably(path, b"")
    (chunk,) = SpoolScan(tmp_path).look().came
    assert chunk.key.seq == number


def test_a_chunk_that_is_put_back_while_it_is_dealt_with_is_found_anew(tmp_path):
    scan, path = SpoolScan(tmp_path), lay(tmp_path, 1)
    (chunk,) = scan.look().came
    path.rename(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").rename(path)  # between two looks, so that no look misses it
    scan.forget(chunk)
    assert [found.path for found in scan.look().came] == [path]
    path.unlink()
    scan.forget(chunk)
    scan.forget(chunk)
    assert not scan.look().came

"""What is looked at, when, and how much memory looking for long takes."""

from __future__ import annotations

import asyncio
import json
import tracemalloc

from benchmarks.page_memory import Day
from wm_core.page.board import Board, Frame
from wm_core.page.hearing import heard_in
from wm_core.page.run_reader import RunReader


def report(n):
    return {"robots": {"kitchen": {"age_s": 0.1, "report": {"t_ns": n, "action": [n % 7]}}}}


def test_looking_for_hours_takes_no_more_memory(tmp_path):
    said = iter(range(10**9))
    board = Board(RunReader(tmp_path), lambda: lambda: heard_in(report(next(said))))
    metrics = (tmp_path / "metrics.jsonl").open("a")

    def look(times):
        for _ in range(times):
            step = {"agent_steps": next(said), "episode/return": 1.0}
            metrics.write((json.dumps(step) + "\n") * 100)
            metrics.flush()
            board._read_s = -10.0  # the folder too, each time
            board.frame = board.look(board._listen())

    with metrics:
        look(18)  # beyond the bound of the curves, 800 points
        tracemalloc.start()
        look(5)
        before, _ = tracemalloc.get_traced_memory()
        look(40)
        after, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert after - before < 200_000


def test_nothing_is_looked_at_while_nobody_watches(tmp_path):
    asked = []

    def listen():
        asked.append(1)
        return lambda: heard_in(report(len(asked)))

    async def play():
        board = Board(RunReader(tmp_path), listen)
        await asyncio.sleep(0.5)
        assert not asked
        frame = Frame()
        for _ in range(3):
            frame = await board.after(frame.number, 30.0)
        assert frame.number >= 3
        board.close()
        while board._task is not None:
            await asyncio.sleep(0.01)
        before = len(asked)
        await asyncio.sleep(0.5)
        assert len(asked) == before

    asyncio.run(play())


def test_a_container_that_changed_brings_its_content():
    before = Frame(
        {"robots": "a", "robot-0-state": "s", "better": "b"}, {"robot-0-camera-0": "p"}, 1
    )
    same = Frame(before.html, before.pictures, 2)
    assert same.since(before) == Frame({}, {}, 2)
    after = Frame({**before.html, "robots": "new"}, before.pictures, 3)
    assert after.since(before).html == {"robots": "new", "robot-0-state": "s"}
    assert after.since(before).pictures == before.pictures
    assert next(iter(after.since(before).html)) == "robots"


def test_watching_for_longer_keeps_no_more_in_memory(tmp_path):
    """A short share of ``benchmarks/page_memory.py``, which plays the whole day."""
    day = Day(tmp_path / "run", robots=2)
    try:
        day.play(8)
        tracemalloc.start()
        day.play(4)
        before, first = tracemalloc.get_traced_memory()[0], day.sample()
        day.play(12)
        after, last = tracemalloc.get_traced_memory()[0], day.sample()
    finally:
        tracemalloc.stop()
        day.close()
    assert last.looks - first.looks == 60
    assert last.shown == first.shown
    assert abs(last.board_bytes - first.board_bytes) < 1000
    assert after - before < 150_000  # a frame has pictures of 8000 bytes

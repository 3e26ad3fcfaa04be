"""Twenty robots and simulators stream to one service at the same time."""

from __future__ import annotations

import contextlib
import threading

import numpy as np

from wm_core.format.chunk import chunk_path
from wm_core.link.audit import audit
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.uploader import Uploader, UploaderSettings
from wm_core.link.trainer.tokens import add_token
from wm_core.store.reader import Store

ROBOTS, STEPS = 20, 30


def test_twenty_robots_and_simulators_lose_and_double_nothing(serve, spec, make_step, tmp_path):
    """Each step carries its robot's and its own number; five robots come at a second start too."""
    tokens = tmp_path / "tokens"
    given = {f"r{n}": add_token(tokens, f"r{n}") for n in range(ROBOTS)}
    service = serve(tokens=tokens)
    settings = SpoolSettings(seal_steps=5)
    folders = []

    def live(robot, number, starts):
        folder = tmp_path / "spools" / robot
        folders.append(folder)
        with contextlib.closing(
            Uploader(folder, url=service.url, token=given[robot], settings=UploaderSettings())
        ) as uploader:
            for start in range(starts):
                spool = Spool(folder, robot=robot, task="", spec=spec, settings=settings)
                for i in range(STEPS):
                    spool.put(make_step(i, reward=float(1000 * number + 100 * start + i)))
                spool.close()
            assert uploader.drain(120.0)

    threads = [
        threading.Thread(target=live, args=(robot, number, 1 + (number % 4 == 0)))
        for number, robot in enumerate(given)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    book = audit(service.application.store, folders)
    starts = ROBOTS + ROBOTS // 4
    assert (book.chunks_acked, book.chunks_lost, book.steps_stored) == (
        starts * STEPS // 5,
        0,
        starts * STEPS,
    )
    ledger = service.application.ledger
    assert all(chunk_path(service.application.store, row.key).exists() for row in ledger.since(0))
    store = Store(service.application.store, cache_bytes=1 << 20)
    with contextlib.closing(store):
        store.refresh()
        rewards = np.concatenate(
            [store.read(s.rows(0, s.length))["reward"] for s in store.segments]
        )
    expected = [
        1000.0 * number + 100 * start + i
        for number in range(ROBOTS)
        for start in range(1 + (number % 4 == 0))
        for i in range(STEPS)
    ]
    assert sorted(rewards.tolist()) == expected

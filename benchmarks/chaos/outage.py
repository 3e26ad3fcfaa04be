"""One outage of three seconds, survived by this project and by Zenoh: what is lost, who waits?

``python -m benchmarks.chaos.outage``

The same camera frames, at the same rate, go through both in turn.  The receiver is killed, or
stopped, in the middle, and comes back three seconds later.  A frame has arrived where the receiver
has it on its disk; a stall is the longest time that handing over one frame took.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from pydantic import BaseModel

from benchmarks.chaos.world import World, wait_until
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import check_chunk, chunk_path
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.uploader import Uploader, UploaderSettings
from wm_core.store.ledger import LEDGER_NAME, Ledger

SIZE = 64
SPEC = Spec(
    images={"image": ImageSpec(height=SIZE, width=SIZE)},
    action=ActionSpec(low=(-1.0,), high=(1.0,)),
)
KEY = "experience/rover0"


class Outage(BaseModel):
    """Compare one outage of the receiver, ours and a peer transport's."""

    hz: float = 20.0  #: frames each second
    before_s: float = 4.0
    outage_s: float = 3.0
    after_s: float = 13.0  #: long enough for either side to be connected again
    rounds: int = 2
    json_to: Path | None = None


class Side(BaseModel):
    """What became of the frames of one side."""

    side: str
    outage: str
    sent: int
    lost: int
    longest_stall_ms: float
    told: str  #: what the sender learnt of it


def frames(count: int) -> list[np.ndarray]:
    """(64, 64, 3) uint8 frames of a noisy camera, each with its number in its first pixels."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
    made = []
    for number in range(count):
        frame = np.roll(noise, number, 0)
        frame.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "little"), np.uint8)
        made.append(frame)
    return made


def number_of(pixels: bytes) -> int:
    """Read the number of a frame."""
    return int.from_bytes(pixels[:4], "little")


def send(settings: Outage, made: list[np.ndarray], put: Callable[[np.ndarray], object]) -> float:
    """Hand over every frame at its time; returns the longest that one took, in seconds."""
    longest_s, begin_s = 0.0, time.monotonic()
    for number, frame in enumerate(made):
        due_s = begin_s + number / settings.hz
        time.sleep(max(0.0, due_s - time.monotonic()))
        before_s = time.monotonic()
        put(frame)
        longest_s = max(longest_s, time.monotonic() - before_s)
    return longest_s


@contextlib.contextmanager
def outage(settings: Outage, down: Callable[[], None], up: Callable[[], None]):
    """Take the receiver away in the middle, in another thread."""

    def work() -> None:
        time.sleep(settings.before_s)
        down()
        time.sleep(settings.outage_s)
        up()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


# ------------------------------------------------------------------ ours


def ours(settings: Outage, made: list[np.ndarray], kind: str, folder: Path) -> Side:
    """Spool, uploader and ``wm serve``."""
    world = World(folder, None, 1, 0.0, random.Random(0))
    try:
        world.start_service()
        spool = Spool(
            folder / "spool",
            robot="rover0",
            task="",
            spec=SPEC,
            settings=SpoolSettings(seal_s=0.5),
        )
        quick = UploaderSettings(backoff_first_s=0.1, backoff_most_s=0.5, read_s=2.0)
        url = f"http://127.0.0.1:{world.proxy.port}"
        uploader = Uploader(
            folder / "spool", url=url, token=world.tokens["rover0"], settings=quick
        )
        action = np.zeros(1, np.float32)

        def put(frame: np.ndarray) -> None:
            spool.put(Step({"image": frame}, action, 0.0, False, False, False))

        with outage(settings, *_switch(world, "service", world.start_service, kind)):
            stall_s = send(settings, made, put)
        spool.close(60.0)
        uploader.drain(120.0)
        told = f"{uploader.counters()['retries']} retries, all counted"
        uploader.close()
        ledger = Ledger(world.store / LEDGER_NAME)
        got = set()
        for row in ledger.since(0):
            data = chunk_path(world.store, row.key).read_bytes()
            columns = check_chunk(data, row.key, max_bytes=len(data))
            got |= {
                number_of(columns.image("image", i).tobytes()) for i in range(columns.meta.steps)
            }
        ledger.close()
    finally:
        world.close()
    lost = len(set(range(len(made))) - got)
    return Side(
        side="wm_ros", outage=kind, sent=len(made), lost=lost,
        longest_stall_ms=1e3 * stall_s, told=told,
    )  # fmt: skip


def _switch(world: World, who: str, start: Callable[[], object], kind: str):
    if kind == "killed":
        return lambda: world.kill(who), start
    return lambda: world.signal(who, signal.SIGSTOP), lambda: world.signal(who, signal.SIGCONT)


# ------------------------------------------------------------------ Zenoh


def theirs(settings: Outage, made: list[np.ndarray], kind: str, folder: Path) -> Side:
    """Zenoh's ``put``, reliable and blocking, to a subscriber that syncs each frame to disk."""
    import zenoh

    world = World(folder, None, 1, 0.0, random.Random(0))
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    got_file = folder / "got"
    ready = folder / "ready"

    def start() -> None:
        ready.unlink(missing_ok=True)
        world.start("receiver", "benchmarks.chaos.outage", "--receive", str(port), str(folder))
        wait_until(ready.exists, "the receiver")

    start()
    config = zenoh.Config()
    config.insert_json5("connect/endpoints", json.dumps([f"tcp/127.0.0.1:{port}"]))
    config.insert_json5("scouting/multicast/enabled", "false")
    config.insert_json5("connect/retry", '{"period_init_ms": 100, "period_max_ms": 500}')
    session = zenoh.open(config)
    failures = 0
    try:
        publisher = session.declare_publisher(
            KEY,
            congestion_control=zenoh.CongestionControl.BLOCK,
            reliability=zenoh.Reliability.RELIABLE,
        )
        wait_until(lambda: publisher.matching_status.matching, "the receiver to subscribe")

        def put(frame: np.ndarray) -> None:
            nonlocal failures
            try:
                publisher.put(frame.tobytes())
            except zenoh.ZError:
                failures += 1

        with outage(settings, *_switch(world, "receiver", start, kind)):
            stall_s = send(settings, made, put)
        time.sleep(3.0)  # for what is still on its way
    finally:
        session.close()
        world.close()
    data = np.frombuffer(got_file.read_bytes(), "<u4") if got_file.exists() else []
    lost = len(set(range(len(made))) - set(map(int, data)))
    return Side(
        side="Zenoh", outage=kind, sent=len(made), lost=lost, longest_stall_ms=1e3 * stall_s,
        told=f"{failures} errors",
    )  # fmt: skip


def receive(port: int, folder: Path) -> None:
    """Subscribe, and write the number of each frame durably."""
    import zenoh

    config = zenoh.Config()
    config.insert_json5("listen/endpoints", json.dumps([f"tcp/127.0.0.1:{port}"]))
    config.insert_json5("scouting/multicast/enabled", "false")
    handle = os.open(folder / "got", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def on_sample(sample: zenoh.Sample) -> None:
        os.write(handle, bytes(sample.payload)[:4])
        os.fsync(handle)

    with zenoh.open(config) as session:
        subscriber = session.declare_subscriber(KEY, on_sample)
        (folder / "ready").write_text("")
        threading.Event().wait()
        subscriber.undeclare()


def main(settings: Outage) -> list[Side]:
    """Run both sides in turn, for both kinds of outage."""
    count = int(settings.hz * (settings.before_s + settings.outage_s + settings.after_s))
    made, found = frames(count), []
    kinds: tuple[Literal["killed", "stopped"], ...] = ("killed", "stopped")
    for turn in range(settings.rounds):
        for kind in kinds:
            for side in (ours, theirs) if turn % 2 == 0 else (theirs, ours):
                with tempfile.TemporaryDirectory() as folder:
                    found.append(side(settings, made, kind, Path(folder) / "world"))
                    print(found[-1].model_dump_json(), flush=True)
    return found


if __name__ == "__main__":
    if sys.argv[1:2] == ["--receive"]:
        receive(int(sys.argv[2]), Path(sys.argv[3]))
    else:
        chosen = tyro.cli(Outage, prog="python -m benchmarks.chaos.outage")
        sides = main(chosen)
        if chosen.json_to:
            text = json.dumps([side.model_dump() for side in sides], indent=1)
            chosen.json_to.write_text(text)

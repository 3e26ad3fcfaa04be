"""Measure what the stream to the trainer costs the control loop in each state of the network.

A paced loop puts a camera step into a spool each tick while an uploader works on what was sealed.
Each turn of a state stands between two turns without any stream, so that whatever else the
machine does meets both alike; what is reported as added is the difference of their quantiles.
Trainer, relay and peers run in processes of their own.

    python benchmarks/stream_jitter.py --rounds 10 --json
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.conformance import random_obs
from wm_core.contract.files import read_json
from wm_core.contract.spec import ActionSpec, Frozen, Spec
from wm_core.contract.step import Step
from wm_core.link.robot.spool import Spool
from wm_core.link.robot.spool_settings import SpoolSettings
from wm_core.link.robot.upload_settings import UploaderSettings
from wm_core.link.robot.uploader import Uploader

QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}
SWITCH_S = 0.0005  #: after which a thread hands the interpreter over, as in the node
LOSS, DELAY_S, RETRANSMIT_S, PACKET_BYTES = 0.02, 0.05, 0.3, 1448
RESTART_S = 1.5
FULL_BYTES = 1_000_000
STATES = (
    "no trainer", "served", "refused", "blackhole", "lossy", "slow reader", "restarting",
    "full spool",
)  # fmt: skip


class Settings(Frozen):
    """Measure how late the ticks of a paced loop are, with and without a stream."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    rate_hz: float = Field(100.0, gt=0, description="Rate of the paced loop in Hz")
    turn_s: float = Field(4.0, gt=0, description="Seconds of one turn")
    rounds: int = Field(5, gt=0, description="Turns of each state")
    states: tuple[str, ...] = Field(STATES, description="States of the network to measure")
    realtime: bool = Field(
        False, description="Run the loop under SCHED_FIFO, which takes the right to do so"
    )
    follow: bool = Field(
        False, description="Run the stream's threads under SCHED_FIFO too, at the lowest priority"
    )


# ------------------------------------------------------------------ the other side


@contextlib.contextmanager
def trainer(folder: Path) -> Iterator[str]:
    """Run ``wm serve``; gives its address."""
    process = _serve(folder, 0)
    try:
        yield _address(folder, process)
    finally:
        process.terminate()
        process.wait()


def _serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    args = [sys.executable, "-m", "wm_core.cli", "serve", "--root", str(folder)]
    args += ["--port", str(port), "--min-free-bytes", "0"]
    return subprocess.Popen(args, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    while not (url := read_json(folder / "service.json").get("url")):
        if process.poll() is not None:
            raise RuntimeError("the service ended at its start")
        time.sleep(0.05)
    return str(url)


def closed_port() -> int:
    """Return a local port on which no process listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def restart(folder: str, port: int) -> None:
    """Start and kill the service over and over, until killed itself."""
    while True:
        process = _serve(Path(folder), port)
        try:
            time.sleep(RESTART_S)
        finally:
            process.kill()
            process.wait()


def relay(listening: socket.socket, port: int, lossy: bool) -> None:
    """Pass on connections as a bad link would, or read a few bytes a second and answer nothing."""
    while True:
        sock = listening.accept()[0]
        if not lossy:
            threading.Thread(target=_sip, args=(sock,), daemon=True).start()
            continue
        try:
            far = socket.create_connection(("127.0.0.1", port))
        except OSError:
            sock.close()
            continue
        for one, other in ((sock, far), (far, sock)):
            threading.Thread(target=_pass_on, args=(one, other), daemon=True).start()


def _sip(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while sock.recv(200):
            time.sleep(0.1)


def _pass_on(one: socket.socket, other: socket.socket) -> None:
    """Delay everything, and by more where one of its packets would have been lost."""
    with contextlib.suppress(OSError):
        while piece := one.recv(65536):
            packets = -(-len(piece) // PACKET_BYTES)
            lost = sum(random.random() < LOSS for _ in range(packets))
            time.sleep(DELAY_S + RETRANSMIT_S * lost)
            other.sendall(piece)
        other.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def beside(target: Any, *args: Any) -> Iterator[None]:
    """Run ``target`` in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=_child, args=(target, args))
    process.start()
    try:
        yield
    finally:
        process.terminate()
        process.join()


def _child(target: Any, args: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    target(*args)


@contextlib.contextmanager
def network(state: str, folder: Path) -> Iterator[str]:
    """Put the network into ``state``; gives the trainer's address, empty for no uploader."""
    with contextlib.ExitStack() as stack:
        if state in ("no trainer", "full spool"):
            yield ""
        elif state == "served":
            yield stack.enter_context(trainer(folder))
        elif state == "refused":
            yield f"http://127.0.0.1:{closed_port()}"
        elif state == "restarting":
            port = closed_port()
            stack.enter_context(beside(restart, str(folder), port))
            yield f"http://127.0.0.1:{port}"
        elif state in ("lossy", "slow reader"):
            url = stack.enter_context(trainer(folder)) if state == "lossy" else ":0"
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            port = int(url.rpartition(":")[2])
            stack.enter_context(beside(relay, listening, port, state == "lossy"))
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        elif state == "blackhole":  # a full queue of connections: further ones get no answer
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            for _ in range(3):
                sock = stack.enter_context(socket.socket())
                sock.setblocking(False)
                sock.connect_ex(listening.getsockname())
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        else:
            raise SystemExit(f"states: expected some of {', '.join(STATES)}, got {state!r}")


# ------------------------------------------------------------------ the robot


def turn(spool: Spool | None, steps: list[Step], settings: Settings) -> tuple[list, list]:
    """Run the loop for one turn; gives the lateness and the length of each tick in seconds."""
    late, took, begin = [], [], time.perf_counter() + 0.05
    for tick in range(round(settings.turn_s * settings.rate_hz)):
        due = begin + tick / settings.rate_hz
        time.sleep(max(0.0, due - time.perf_counter()))
        began = time.perf_counter()
        obs = {name: value.copy() for name, value in steps[tick % len(steps)].obs.items()}
        if spool is not None:
            spool.put(replace(steps[tick % len(steps)], obs=obs))
        late.append(began - due)
        took.append(time.perf_counter() - began)
    return late, took


def _follow() -> None:
    """Let no other program keep the processor from a thread that holds the interpreter."""
    for thread in threading.enumerate():
        if thread.name.startswith(("spool", "uploader")) and thread.native_id is not None:
            os.sched_setscheduler(thread.native_id, os.SCHED_FIFO, os.sched_param(1))


def measure(state: str, settings: Settings, steps: list[Step], spec: Spec) -> dict[str, list]:
    """Take turns in ``state`` and without a stream; gives what each tick came to."""
    found: dict[str, list] = {"none": [], "late": [], "took": []}
    with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as stack:
        folder = Path(temporary)
        url = stack.enter_context(network(state, folder / "trainer"))
        bound = {"max_bytes": FULL_BYTES} if state == "full spool" else {}
        spool_settings, deadlines = SpoolSettings(**bound), UploaderSettings(read_s=2.0)
        for _ in range(settings.rounds):
            found["none"] += turn(None, steps, settings)[0]
            spool = Spool(
                folder / "spool", robot="bench", task="", spec=spec, settings=spool_settings
            )
            uploader = Uploader(folder / "spool", url=url, settings=deadlines) if url else None
            if settings.follow:
                _follow()
            late, took = turn(spool, steps, settings)
            found["late"] += late
            found["took"] += took
            if uploader is not None:
                uploader.close()
            spool.close()
    return found


def main(settings: Settings) -> None:
    """Measure and report."""
    sys.setswitchinterval(SWITCH_S)
    if settings.realtime:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(50))
    spec = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))
    rng = np.random.default_rng(0)
    blank = Step(spec.zeros(), np.zeros(2, np.float32), 0.0, False, False, False)
    steps = [replace(blank, obs=random_obs(spec, rng)) for _ in range(32)]
    with Report("stream jitter", as_json=settings.json_) as report:
        for state in settings.states:
            report.progress(state)
            found = measure(state, settings, steps, spec)
            name = state.replace(" ", "_")
            for quantile, share in QUANTILES.items():
                late, none, took = (
                    float(np.quantile(found[kind], share)) * 1e3
                    for kind in ("late", "none", "took")
                )
                report.add(f"stream/{name}/late_{quantile}", late, "ms")
                report.add(f"stream/{name}/added_{quantile}", late - none, "ms")
                report.add(f"stream/{name}/put_{quantile}", took, "ms")


if __name__ == "__main__":
    main(tyro.cli(Settings))

"""Measure how many frames the trainer's service takes in, durably, over TLS with tokens.

Senders are processes of their own that do what a robot's uploader does: one chunk of 64 steps,
its acknowledgement, the next.  Their chunks are encoded beforehand.  The service is a real
``wm serve``, whose CPU time the system counts: figures per CPU second hold on a busy machine too.
Beside it, in the same run, the same bytes are written as plain files, each synced with its folder.

    python benchmarks/ingest.py --senders 1 4 20 --seconds 6
    python benchmarks/ingest.py --senders 4 --live 0 10   # robots that are watched meanwhile
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from ipaddress import ip_address
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

import gymnasium
import numpy as np
import tyro
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.files import write_durably
from wm_core.contract.live import LiveReport
from wm_core.contract.spec import ActionSpec, Frozen, ImageSpec, Spec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import TrainerClient
from wm_core.link.robot.live import LiveSender, LiveSnapshot
from wm_core.link.trainer.settings import SERVICE_FILE
from wm_core.link.trainer.tokens import add_token

STEPS = 64
_MOST_PER_S = 300  # chunks that a service is expected to take, so that senders do not run dry
WAIT_S = 60.0
SPEC = Spec(
    images={"image": ImageSpec(height=64, width=64)},
    action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)),
)

Kind = Literal["flat", "noise"]


class Settings(Frozen):
    """Measure durable ingest over TLS with tokens, beside plain synced files."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = Field(
        False, description="Print JSON lines instead of a table"
    )
    senders: tuple[int, ...] = Field((1, 4, 20), description="Numbers of robots that send at once")
    kinds: tuple[Kind, ...] = Field(
        ("flat", "noise"), description="Frames of the flat simulator, or of pure noise"
    )
    live: tuple[int, ...] = Field(
        (0,), description="Numbers of further robots that send live reports at 5 Hz meanwhile"
    )
    seconds: float = Field(5.0, gt=0, description="Seconds that each case may take at most")
    megabytes: int = Field(400, gt=0, description="Megabytes of chunks encoded for each case")
    folder: Path | None = Field(None, description="Where to store; None takes a temporary folder")
    profile: Path | None = Field(
        None, description="File for the service's profile; figures are then those of a slow one"
    )


class Chunk(NamedTuple):
    """One encoded chunk with what its request needs."""

    key: ChunkKey
    data: bytes
    sha256: str


def flat_frames(count: int) -> list[np.ndarray]:
    """Draw (64, 64, 3) frames of the task ``sim:seek`` under random actions."""
    env = gymnasium.make("sim:seek")
    obs, _ = env.reset(seed=0)
    frames = []
    for _ in range(count):
        frames.append(np.asarray(obs["image"]))
        obs, _, ended, cut, _ = env.step(env.action_space.sample())
        if ended or cut:
            obs, _ = env.reset()
    env.close()
    return frames


def frames_of(kind: Kind, count: int = 256) -> list[np.ndarray]:
    """Give ``count`` frames (64, 64, 3) uint8."""
    if kind == "noise":
        rng = np.random.default_rng(0)
        return list(rng.integers(0, 256, (count, 64, 64, 3), np.uint8))
    return flat_frames(count)


def encode(robot: str, frames: list[np.ndarray], count: int) -> list[Chunk]:
    """Encode ``count`` chunks of one session from frames (64, 64, 3), over and over."""
    session, chunks = uuid4().hex, []
    rng = np.random.default_rng(0)
    for seq in range(count):
        steps = [
            Step(
                obs={"image": frames[(seq * STEPS + i) % len(frames)]},
                action=rng.uniform(-1, 1, 2).astype(np.float32),
                reward=0.0,
                is_first=seq == i == 0,
                is_last=False,
                is_terminal=False,
                stamp_ns=(seq * STEPS + i) * 50_000_000 + 10**18,
            )
            for i in range(STEPS)
        ]
        meta = ChunkMeta(
            robot=robot,
            session=session,
            seq=seq,
            spec=SPEC,
            first_step=seq * STEPS,
            steps=STEPS,
        )
        data = encode_chunk(steps, meta)
        chunks.append(Chunk(meta.key, data, hashlib.sha256(data).hexdigest()))
    return chunks


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate of 127.0.0.1, signed by itself, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "trainer")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    paths = folder / "trainer.pem", folder / "trainer.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


class Service:
    """Runs ``wm serve`` with TLS and tokens on a folder of its own."""

    def __init__(self, folder: Path, tokens: Path, profile: Path | None, *more: str) -> None:
        self.root = folder / "run"
        self.certificate, key = certificate(folder)
        words = [sys.executable]
        words += ["-m", "cProfile", "-o", str(profile)] if profile else []
        words += ["-m", "wm_core.cli.main", "serve", "--root", self.root, "--port", "0"]
        words += ["--tokens", tokens, "--tls-cert", self.certificate, "--tls-key", key]
        words += ["--robot-chunks-per-s", "0", "--min-free-bytes", "0", *more]
        self.process = subprocess.Popen([*map(str, words)], stdout=subprocess.DEVNULL)
        where, deadline_s = self.root / SERVICE_FILE, time.monotonic() + WAIT_S
        while not where.exists():
            if time.monotonic() > deadline_s or self.process.poll() is not None:
                raise TimeoutError("the service did not start")
            time.sleep(0.05)
        self.port = urlsplit(json.loads(where.read_text())["url"]).port or 0

    def cpu_s(self) -> float:
        """Seconds of CPU that the service has used, in all its threads."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Most memory that the service ever held."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def close(self) -> None:
        """End the service in order."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(WAIT_S)


def send(
    chunks: list[Chunk],
    port: int,
    trusted: Path,
    token: str,
    begin: Any,
    until_s: Any,
    results: Any,
) -> None:
    """Send chunks one by one until they are gone or the time is up; runs in its own process."""
    context = ssl.create_default_context(cafile=str(trusted))
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock = context.wrap_socket(plain, server_hostname="127.0.0.1")
    taken_s: list[float] = []
    begin.wait(WAIT_S)
    for key, data, sha256 in chunks:
        start_s = time.monotonic()
        if start_s > until_s.value:
            break
        head = (
            f"PUT /v1/chunks/{key.robot}/{key.session}/{key.seq} HTTP/1.1\r\nHost: trainer\r\n"
            f"Authorization: Bearer {token}\r\nX-Content-SHA256: {sha256}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n"
        )
        sock.sendall(head.encode() + data)
        reply = b""
        while b"}" not in reply:
            piece = sock.recv(65536)
            if not piece:
                raise ConnectionError(f"the service closed the connection after {reply!r}")
            reply += piece
        if not reply.startswith(b"HTTP/1.1 201") or sha256.encode() not in reply:
            raise ConnectionError(f"expected an acknowledgement, got {reply!r}")
        taken_s.append(time.monotonic() - start_s)
    results.put(taken_s)
    sock.close()


def watched(port: int, trusted: Path, tokens: dict[str, str], person: str) -> None:
    """Send live reports of robots, with a picture, and look at all; runs in its own process."""
    rng, access = np.random.default_rng(0), AccessSettings(ca_file=str(trusted), proxy="none")
    url = f"https://127.0.0.1:{port}"
    counters = {f"counter_{i}": i for i in range(30)}

    def snapshot(pictures: bool) -> LiveSnapshot:
        now_ns = time.time_ns()
        image = rng.integers(0, 256, (64, 64, 3), np.uint8)
        report = LiveReport(t_ns=now_ns, mode="acts", action=(0.5, 0.5), counters=counters)
        return LiveSnapshot(report, {"image": (now_ns, image)} if pictures else {})

    senders = [
        LiveSender(url, robot=robot, snapshot=snapshot, token=token, access=access)
        for robot, token in tokens.items()
    ]
    client = TrainerClient(url, token=person, access=access)
    while senders:
        client.request("GET", "/v1/live")
        time.sleep(0.2)


class Outcome(NamedTuple):
    """What one case came to."""

    times_s: list[float]  #: from each chunk's first byte to its acknowledgement
    wall_s: float
    cpu_s: float  #: of the service
    memory_mib: float  #: most that the service ever held


@contextmanager
def running(*processes: BaseProcess) -> Iterator[None]:
    """Let processes run meanwhile, and end those that are left."""
    for process in processes:
        process.start()
    try:
        yield
    finally:
        for process in processes:
            process.terminate()
            process.join()


def drive(settings: Settings, folder: Path, work: dict[str, list[Chunk]], live: int) -> Outcome:
    """Let each robot of ``work`` send its chunks while ``live`` others are watched."""
    fork = multiprocessing.get_context("fork")
    begin, results, until_s = fork.Barrier(len(work) + 1), fork.Queue(), fork.Value("d", 0.0)
    tokens = folder / "tokens"
    given = {robot: add_token(tokens, robot) for robot in work}
    seen = {f"live{i}": add_token(tokens, f"live{i}") for i in range(live)}
    person = add_token(tokens, "person", may_look=True)
    service = Service(folder, tokens, settings.profile)
    place = service.port, service.certificate
    senders = [
        fork.Process(
            target=send, args=(chunks, *place, given[robot], begin, until_s, results), daemon=True
        )
        for robot, chunks in work.items()
    ]
    looks = fork.Process(target=watched, args=(*place, seen, person), daemon=True)
    beside = [looks] if live else []
    try:
        with running(*senders, *beside):
            time.sleep(3.0 if live else 0.5)
            before_s = service.cpu_s()
            until_s.value = time.monotonic() + settings.seconds
            start_s = time.monotonic()
            begin.wait(WAIT_S)
            times_s = [t for _ in senders for t in results.get(timeout=WAIT_S)]
            wall_s = time.monotonic() - start_s
            return Outcome(times_s, wall_s, service.cpu_s() - before_s, service.memory_mib())
    finally:
        service.close()


def measure(
    settings: Settings, report: Report, kind: Kind, senders: int, live: int, home: Path
) -> None:
    """Measure one case and report it."""
    frames = frames_of(kind)
    size = len(encode("probe", frames, 1)[0].data)
    most = min(settings.megabytes * 1_000_000 // size, int(_MOST_PER_S * settings.seconds))
    count = max(2, most // senders)
    work = {f"r{i}": encode(f"r{i}", frames, count) for i in range(senders)}
    with tempfile.TemporaryDirectory(dir=home) as name:
        raw_s, raw_cpu_s, raw_chunks = raw(Path(name) / "raw", next(iter(work.values()))[:200])
        got = drive(settings, Path(name), work, live)
    done = len(got.times_s)
    p50, p99 = np.quantile(got.times_s, [0.5, 0.99])
    figures = {
        "chunks": (float(done), ""),
        "frames_per_s": (done * STEPS / got.wall_s, "1/s"),
        "frames_per_core_s": (done * STEPS / got.cpu_s, "1/s"),
        "cpu_per_chunk": (1e3 * got.cpu_s / done, "ms"),
        "ack_p50": (1e3 * p50, "ms"),
        "ack_p99": (1e3 * p99, "ms"),
        "bytes_per_step": (size / STEPS, "B"),
        "service_memory": (got.memory_mib, "MiB"),
        "raw_frames_per_s": (raw_chunks * STEPS / raw_s, "1/s"),
        "raw_frames_per_core_s": (raw_chunks * STEPS / max(raw_cpu_s, 1e-3), "1/s"),
    }
    case = f"{senders}+{live}live" if live else f"{senders}"
    for figure, (value, unit) in figures.items():
        report.add(f"ingest/{kind}/{case}/{figure}", float(value), unit)


def raw(folder: Path, chunks: list[Chunk]) -> tuple[float, float, int]:
    """Write chunks as plain files, each synced with its folder: (wall s, CPU s, how many)."""
    start_s, cpu_s = time.monotonic(), time.process_time()
    for chunk in chunks:
        write_durably(folder / f"{chunk.key.seq}.mcap", chunk.data)
    return time.monotonic() - start_s, time.process_time() - cpu_s, len(chunks)


def main() -> None:
    """Measure every kind of frame with every number of senders."""
    settings = tyro.cli(Settings, description=__doc__)
    home = settings.folder or Path(tempfile.gettempdir())
    with Report("ingest", as_json=settings.json_) as report:
        for kind in settings.kinds:
            for senders in settings.senders:
                for live in settings.live:
                    report.progress(f"{kind} frames, {senders} senders, {live} watched")
                    measure(settings, report, kind, senders, live, home)


if __name__ == "__main__":
    main()

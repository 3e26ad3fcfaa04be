"""How many robots can one service take in?  ``python -m benchmarks.fleet --minutes 10``.

Each robot is a connection of its own, over TLS, with its own name and token.  At 20 Hz it fills a
chunk of 64 frames of 64x64x3 every 3.2 s and sends it; the robots start at different moments of
that period.  The number of robots grows level by level until acknowledgements lag: until the
99th percentile of the time from "the chunk is full" to "it is acknowledged" exceeds one period, or
more than one chunk in a hundred is not acknowledged at all.  The largest level that held is then
kept up for the rest of the time.

The senders run on the same cores as the service; their CPU time is stated beside its own.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import multiprocessing
import os
import random
import ssl
import struct
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import numpy as np
import tyro
from pydantic import Field

from benchmarks.ingest import STEPS, Service, encode, flat_frames
from wm_core.bench.report import Report
from wm_core.contract.frozen import Frozen
from wm_core.format.chunk import ChunkMeta, decode_chunk, encode_chunk
from wm_core.link.trainer.tokens import add_token
from wm_core.store.ledger import LEDGER_NAME, Ledger

HZ = 20
PERIOD_S = STEPS / HZ
FIRST_SEQ = 1000  #: so that numbers have the same length in every chunk
_FOOTER = struct.Struct("<QQI")
_END = struct.Struct("<BQI")


class Fleet(Frozen):
    """Raise the number of robots until their acknowledgements lag."""

    minutes: float = Field(10.0, gt=0, description="Minutes for all levels together")
    level_s: float = Field(16.0, gt=0, description="Seconds of each level while it is searched")
    first: int = Field(25, gt=0, description="Robots of the first level")
    factor: float = Field(1.4, gt=1, description="From one level to the next")
    most: int = Field(1000, gt=0, description="Robots of the largest level")
    processes: int = Field(2, gt=0, description="Processes that play the robots")
    folder: Path | None = Field(None, description="Where to store; None takes a temporary folder")
    json_to: Path | None = Field(None, description="File for the figures as JSON")


class Level(Frozen):
    """What one number of robots came to."""

    robots: int
    seconds: float
    offered_chunks_per_s: float
    acked_chunks_per_s: float
    frames_per_s: float
    ack_p50_ms: float  #: from "the chunk is full" to "it is acknowledged"
    ack_p99_ms: float
    behind: int  #: chunks that were full and not acknowledged in the end
    refused: dict[str, int]  #: answers other than 200 and 201, by status
    service_cores: float
    service_ms_per_chunk: float
    senders_cores: float
    service_mib: float
    bytes_per_step: float

    @property
    def holds(self) -> bool:
        offered = self.offered_chunks_per_s * self.seconds
        return self.ack_p99_ms < 1e3 * PERIOD_S and self.behind <= 0.01 * offered


class Template(NamedTuple):
    """A chunk whose key can be changed without encoding it again."""

    data: bytes
    meta: bytes  #: as it stands in the file
    end: int  #: place of the record that ends the data

    @classmethod
    def of(cls, data: bytes, meta: ChunkMeta) -> Template:
        """Find the places that depend on the key, and prove that changing them is right."""
        start, _, _ = _FOOTER.unpack_from(data, len(data) - 8 - _FOOTER.size)
        found = cls(data, meta.model_dump_json().encode(), start - _END.size)
        if found.keyed(meta) != data or data.count(found.meta) != 1:
            raise ValueError("the file is not laid out as expected")
        return found

    def keyed(self, meta: ChunkMeta) -> bytes:
        """Give the chunk with another meta of the same length."""
        text = meta.model_dump_json().encode()
        if len(text) != len(self.meta):
            raise ValueError(f"expected {len(self.meta)} bytes, got {text!r}")
        changed = bytearray(self.data.replace(self.meta, text))
        crc = zlib.crc32(memoryview(changed)[: self.end])
        _END.pack_into(changed, self.end, 0x0F, 4, crc)
        return bytes(changed)


def template(frames: list[np.ndarray], name: str) -> tuple[Template, ChunkMeta]:
    """Encode (64, 64, 3) frames as a chunk whose numbers have the length of all others."""
    meta, steps = decode_chunk(encode(name, frames, 1)[0].data)
    meta = meta.model_copy(update={"seq": FIRST_SEQ, "first_step": FIRST_SEQ * STEPS})
    return Template.of(encode_chunk(steps, meta), meta), meta


class _Robots:
    """Plays a share of the robots in one process."""

    def __init__(
        self, kinds: list[tuple[Template, ChunkMeta]], names: dict[str, str], port: int, ca: str
    ) -> None:
        self._kinds, self._names, self._port = kinds, names, port
        self._tls = ssl.create_default_context(cafile=ca)
        self.lags_s: list[float] = []
        self.refused: dict[str, int] = {}
        self.offered = 0

    async def run(self, seconds: float) -> None:
        """Send until the time is up."""
        loop = asyncio.get_running_loop()
        opened = []
        for name, token in self._names.items():  # one after another: handshakes cost CPU
            opened.append(await self._open(name, token))
        begin_s = loop.time() + 0.5
        works = [self._robot(*one, begin_s, begin_s + seconds) for one in opened]
        await asyncio.gather(*works)

    async def _open(self, name: str, token: str):
        for attempt in range(20):
            try:
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._port, ssl=self._tls, server_hostname="127.0.0.1"
                )
                return name, token, reader, writer
            except OSError:
                await asyncio.sleep(0.1 * (attempt + 1))
        raise ConnectionError(f"{name} cannot connect")

    async def _robot(self, name, token, reader, writer, begin_s: float, end_s: float) -> None:
        loop, rng = asyncio.get_running_loop(), random.Random(name)
        session = uuid4().hex
        due_s = begin_s + rng.uniform(0, PERIOD_S)
        seq = FIRST_SEQ
        while due_s < end_s:
            await asyncio.sleep(max(0.0, due_s - loop.time()))
            self.offered += 1
            made, meta = self._kinds[seq % len(self._kinds)]
            update = {
                "robot": name, "session": session, "seq": seq, "first_step": seq * STEPS,
            }  # fmt: skip
            data = made.keyed(meta.model_copy(update=update))
            try:
                status = await asyncio.wait_for(
                    self._put(reader, writer, name, session, seq, token, data),
                    max(0.1, end_s + 2 * PERIOD_S - loop.time()),
                )
            except (OSError, EOFError, asyncio.TimeoutError):
                status = "no answer"
            if status in ("200", "201"):
                self.lags_s.append(loop.time() - due_s)
                seq, due_s = seq + 1, due_s + PERIOD_S
                continue
            self.refused[status] = self.refused.get(status, 0) + 1
            if status == "no answer":
                return
            self.offered -= 1  # it comes again
            await asyncio.sleep(0.5)
            if loop.time() > end_s + PERIOD_S:
                return
        writer.close()

    async def _put(self, reader, writer, name, session, seq, token, data: bytes) -> str:
        sha256 = hashlib.sha256(data).hexdigest()
        writer.write(
            f"PUT /v1/chunks/{name}/{session}/{seq} HTTP/1.1\r\nHost: trainer\r\n"
            f"Authorization: Bearer {token}\r\nX-Content-SHA256: {sha256}\r\n"
            f"Content-Length: {len(data)}\r\n\r\n".encode()
        )
        writer.write(data)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            int(line.split(b":")[1])
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"content-length")
        )
        body = await reader.readexactly(length)
        status = head.split(b" ", 2)[1].decode()
        if status in ("200", "201") and sha256.encode() not in body:
            return "wrong hash"
        return status


def play(kinds, names, port: int, ca: str, seconds: float, results: Any) -> None:
    """Play robots in a process of its own."""
    gc.freeze()
    before_s = time.process_time()
    robots = _Robots(kinds, names, port, ca)
    asyncio.run(robots.run(seconds))
    used_s = time.process_time() - before_s
    results.put((robots.offered, robots.lags_s, robots.refused, used_s))


def level(
    settings: Fleet, service: Service, kinds, tokens: dict[str, str], robots: int, seconds: float
) -> Level:
    """Measure one number of robots."""
    names = list(tokens.items())[:robots]
    shares = [dict(names[n :: settings.processes]) for n in range(settings.processes)]
    fork = multiprocessing.get_context("fork")
    results = fork.Queue()
    ca = str(service.certificate)
    before_s = service.cpu_s()
    processes = [
        fork.Process(target=play, args=(kinds, share, service.port, ca, seconds, results))
        for share in shares
        if share
    ]
    for process in processes:
        process.start()
    found = [results.get(timeout=20 * seconds + 300) for _ in processes]
    for process in processes:
        process.join()
    lags_s = np.array([lag for _, lags, _, _ in found for lag in lags] or [np.inf])
    cpu_s = service.cpu_s() - before_s
    offered, acked = sum(f[0] for f in found), int(np.isfinite(lags_s).sum())
    refused: dict[str, int] = {}
    for _, _, counts, _ in found:
        for status, count in counts.items():
            refused[status] = refused.get(status, 0) + count
    p50, p99 = (float(1e3 * np.quantile(lags_s, q)) for q in (0.5, 0.99))
    return Level(
        robots=robots,
        seconds=seconds,
        offered_chunks_per_s=offered / seconds,
        acked_chunks_per_s=acked / seconds,
        frames_per_s=acked * STEPS / seconds,
        ack_p50_ms=p50,
        ack_p99_ms=p99,
        behind=offered - acked,
        refused=refused,
        service_cores=cpu_s / seconds,
        service_ms_per_chunk=1e3 * cpu_s / max(1, acked),
        senders_cores=sum(f[3] for f in found) / seconds,
        service_mib=service.memory_mib(),
        bytes_per_step=float(np.mean([len(t.data) for t, _ in kinds])) / STEPS,
    )


def search(settings: Fleet, service: Service, kinds, tokens: dict[str, str]) -> list[Level]:
    """Raise the number of robots until it no longer holds; then keep up the largest that did."""
    end_s = time.monotonic() + 60 * settings.minutes
    levels: list[Level] = []
    robots = settings.first
    while True:
        levels.append(level(settings, service, kinds, tokens, robots, settings.level_s))
        print(levels[-1].model_dump_json(), flush=True)
        if not levels[-1].holds or robots >= settings.most or time.monotonic() > end_s:
            break
        robots = min(settings.most, int(robots * settings.factor) + 1)
    held = [found.robots for found in levels if found.holds]
    left_s = end_s - time.monotonic()
    if held and left_s > settings.level_s:
        levels.append(level(settings, service, kinds, tokens, held[-1], left_s))
        print(levels[-1].model_dump_json(), flush=True)
    return levels


def main() -> None:
    """Search the knee and report it."""
    settings = tyro.cli(Fleet, prog="python -m benchmarks.fleet")
    frames = flat_frames(4 * STEPS)
    kinds = [template(frames[n * STEPS : (n + 1) * STEPS], "robot-0000") for n in range(4)]
    home = settings.folder or Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(dir=home) as name, Report("fleet", as_json=False) as report:
        folder = Path(name)
        tokens = {
            robot: add_token(folder / "tokens", robot)
            for robot in (f"robot-{n:04d}" for n in range(settings.most))
        }
        report.progress(f"{settings.most} robots are let in")
        service = Service(
            folder,
            folder / "tokens",
            None,
            "--max-connections-per-peer",
            str(settings.most + 10),
            "--max-connections",
            str(settings.most + 20),
        )
        try:
            levels = search(settings, service, kinds, tokens)
        finally:
            service.close()
        ledger = Ledger(service.root / "store" / LEDGER_NAME)
        stored = ledger.counts()["chunks"]
        ledger.close()
        acked = round(sum(found.acked_chunks_per_s * found.seconds for found in levels))
        held = [found for found in levels if found.holds] or levels[:1]
        knee = max(held, key=lambda f: f.robots)
        for figure, value in knee.model_dump().items():
            if not isinstance(value, dict):
                report.add(f"fleet/knee/{figure}", float(value), "")
        report.add("fleet/acknowledged", float(acked), "chunks")
        report.add("fleet/stored", float(stored), "chunks")
        if settings.json_to:
            rows = [found.model_dump() | {"holds": found.holds} for found in levels]
            about = {"load": os.getloadavg(), "cores": os.cpu_count(), "stored": stored}
            settings.json_to.write_text(json.dumps(about | {"levels": rows}, indent=1))
        if stored < acked:
            raise SystemExit(f"{acked} chunks were acknowledged, {stored} are stored")


if __name__ == "__main__":
    main()

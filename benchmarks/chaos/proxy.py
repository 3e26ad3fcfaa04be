"""A proxy between robots and service that misbehaves, one request in so many, and on order.

It forwards one request at a time on each connection, reads the answer, and notes every
acknowledgement that the service gave, whether or not the robot gets to see it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import responses

LIMIT = 1 << 20
PAGE = b"<html><head><title>{}</title></head><body><h1>{}</h1><hr>proxy</body></html>"
#: what the proxy may do to a request
MOODS = (
    *("cut_request", "cut_answer", "half_answer", "lost_answer", "slow_answer", "stall"),
    *("half_open", "twice", "reorder", "flip_body", "flip_answer", "garbage", "empty"),
    *("page_200", "page_302", "page_400", "page_401", "page_403", "page_404", "page_409"),
    *("page_413", "page_415", "page_502", "page_503", "short_length", "other_ack"),
)


@dataclass
class Message:
    """Holds one HTTP request or answer with its whole body."""

    head: bytes
    body: bytes

    @property
    def whole(self) -> bytes:
        return self.head + self.body


@dataclass
class Acks:
    """Lists every acknowledgement that passed: path of the chunk and its hash."""

    seen: list[tuple[str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, request: Message, answer: Message) -> None:
        """Note an acknowledgement of the service, if ``answer`` is one."""
        status = answer.head.split(b" ", 2)[1:2]
        if status not in ([b"200"], [b"201"]) or not request.head.startswith(b"PUT "):
            return
        with contextlib.suppress(ValueError):
            said = json.loads(answer.body)
            if said.get("verdict") in ("stored", "known"):
                path = request.head.split(b" ", 2)[1].decode()
                with self.lock:
                    self.seen.append((path.removeprefix("/v1/chunks/"), said["sha256"]))

    def since(self, index: int) -> list[tuple[str, str]]:
        """Give the acknowledgements from ``index`` on."""
        with self.lock:
            return self.seen[index:]

    def __len__(self) -> int:
        with self.lock:
            return len(self.seen)


class Proxy:
    """Listens on a port of the loopback and forwards to where ``upstream`` says.

    Args:
        upstream: gives the service's port of the moment; 0 where there is none.
        share: of the requests that are mistreated without an order.
        rng: draws which and how.
    """

    def __init__(self, upstream: Callable[[], int], share: float, rng: random.Random) -> None:
        self.acks, self.done = Acks(), Counter[str]()
        self.orders: deque[str] = deque()  #: moods for the next requests
        self.dead_until = 0.0  #: time.monotonic() until which connections are cut at once
        self.silent_until = 0.0  #: time.monotonic() until which nothing is answered
        self._upstream, self._share, self._rng = upstream, share, rng
        self._held: asyncio.Event | None = None
        self._serving: set[asyncio.Task | None] = set()
        self._loop = asyncio.new_event_loop()
        self._server = self._loop.run_until_complete(
            asyncio.start_server(self._serve, "127.0.0.1", 0, limit=LIMIT)
        )
        self.port = self._server.sockets[0].getsockname()[1]
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the proxy and every connection."""

        async def end() -> None:
            self._server.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        asyncio.run_coroutine_threadsafe(end(), self._loop).result(30.0)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30.0)
        self._loop.close()

    def _mood(self) -> str:
        if self.orders:
            mood = self.orders.popleft()
        elif self._rng.random() < self._share:
            mood = self._rng.choice(MOODS)
        else:
            return "pass"
        self.done[mood] += 1
        return mood

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving = asyncio.current_task()
        self._serving.add(serving)  # the loop alone would let it be collected while it waits
        behind: tuple[asyncio.StreamReader, asyncio.StreamWriter, int] | None = None
        try:
            while (request := await _read(reader)) is not None:
                now_s = time.monotonic()
                if now_s < self.dead_until:
                    break
                if now_s < self.silent_until:
                    await asyncio.sleep(self.silent_until - now_s)
                    break
                port = self._upstream()
                if behind is None or behind[2] != port or behind[0].at_eof():
                    if behind is not None:
                        behind[1].close()
                    behind = await _connect(port)
                if not await self._treat(self._mood(), request, behind, writer):
                    break
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError, ValueError):
            pass
        finally:
            self._serving.discard(serving)
            writer.close()
            if behind is not None:
                behind[1].close()

    async def _forward(self, request: Message, behind) -> Message:
        reader, writer, _ = behind
        writer.write(request.whole)
        await writer.drain()
        answer = await _read(reader)
        if answer is None:
            raise ConnectionResetError("the service closed the connection")
        self.acks.note(request, answer)
        return answer

    async def _treat(self, mood: str, request: Message, behind, writer) -> bool:
        """Do to one request what ``mood`` says; returns whether the connection goes on."""
        if mood in ("cut_request", "short_length"):  # the service gets half a body, then an end
            behind[1].write(request.whole[: len(request.head) + len(request.body) // 2])
            await behind[1].drain()
            behind[1].close()
            return False
        if mood == "half_open":  # nothing comes back, and nobody says so
            await asyncio.sleep(self._rng.uniform(1.0, 6.0))
            return False
        if mood.startswith("page_"):
            writer.write(_page(int(mood[5:])))
            await writer.drain()
            return True
        if mood in ("garbage", "empty"):
            writer.write(self._rng.randbytes(300) if mood == "garbage" else b"")
            await writer.drain()
            return False
        if mood == "stall":
            await asyncio.sleep(self._rng.uniform(0.5, 2.5))
        if mood == "reorder":
            await self._behind_another()
        if mood == "flip_body" and request.body:
            request = Message(request.head, _flipped(request.body, self._rng))
        answer = await self._forward(request, behind)
        if mood == "twice":
            with contextlib.suppress(OSError):
                second = await _connect(behind[2])
                answer = await self._forward(request, second)
                second[1].close()
        if mood == "other_ack":  # an old acknowledgement in place of this one
            body = answer.body.replace(b'"sha256":"', b'"sha256":"0')
            writer.write(_page(200, body, "application/json"))
            await writer.drain()
            return True
        return await self._answer(mood, answer, writer)

    async def _answer(self, mood: str, answer: Message, writer) -> bool:
        whole = answer.whole
        if mood in ("cut_answer", "lost_answer"):
            return False
        if mood == "half_answer":
            whole = whole[: self._rng.randrange(1, len(whole))]
        if mood == "flip_answer":
            whole = _flipped(whole, self._rng)
        if mood == "slow_answer":
            for at in range(0, len(whole), 16):
                writer.write(whole[at : at + 16])
                await asyncio.sleep(0.02)
        else:
            writer.write(whole)
        await writer.drain()
        return mood not in ("half_answer", "flip_answer")

    async def _behind_another(self) -> None:
        """Wait until a later request has passed, at most a second."""
        held, self._held = self._held, asyncio.Event()
        if held is not None:
            held.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._held.wait(), 1.0)


async def _connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, int]:
    if not port:
        raise ConnectionRefusedError("there is no service")
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LIMIT)
    return reader, writer, port


async def _read(reader: asyncio.StreamReader) -> Message | None:
    """Read one message with a Content-Length; None at the end of the connection."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    length = 0
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            length = int(value)
    return Message(head, await reader.readexactly(length) if length else b"")


def _page(status: int, body: bytes | None = None, kind: str = "text/html") -> bytes:
    """Make an answer that no service of ours gave."""
    words = f"{status} {responses[status]}".encode()
    body = PAGE.replace(b"{}", words) if body is None else body
    more = b"Location: http://127.0.0.1:1/login\r\n" if status == 302 else b""
    head = b"HTTP/1.1 %s\r\nContent-Type: %s\r\n%sContent-Length: %d\r\n\r\n"
    return head % (words, kind.encode(), more, len(body)) + body


def _flipped(data: bytes, rng: random.Random) -> bytes:
    """Flip one bit."""
    changed = bytearray(data)
    changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)

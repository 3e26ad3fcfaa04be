"""The faults of the campaign.  Each does its harm to the world and leaves it running again."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import signal
import socket
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.chaos.account import Injured, name
from benchmarks.chaos.proxy import MOODS
from benchmarks.chaos.world import Stuck, World, wait_until
from wm_core.format.chunk import ChunkKey, check_chunk, chunk_path
from wm_core.link.robot.journal import SENT, SpoolSession, sessions_in
from wm_core.store.ledger import LEDGER_NAME


class Fault(NamedTuple):
    """One kind of fault."""

    do: Callable[[World], None]
    weight: int
    needs_disks: bool = False


FAULTS: dict[str, Fault] = {}


def fault(weight: int, *, needs_disks: bool = False):
    """Enter a function into the table, under its name."""

    def enter(do: Callable[[World], None]) -> Callable[[World], None]:
        FAULTS[do.__name__] = Fault(do, weight, needs_disks)
        return do

    return enter


def _some(world: World) -> str:
    return world.rng.choice(world.names)


def _pause(world: World, who: str, most_s: float) -> None:
    world.signal(who, signal.SIGSTOP)
    time.sleep(world.rng.uniform(0.1, most_s))
    world.signal(who, signal.SIGCONT)


# ------------------------------------------------------------------ processes


@fault(6)
def kill_service(world: World) -> None:
    """SIGKILL; it comes back on another port."""
    world.kill("service")
    world.start_service()


@fault(3)
def end_service(world: World) -> None:
    """SIGTERM in the middle of uploads."""
    world.end("service")
    world.start_service()


@fault(5)
def stop_service(world: World) -> None:
    """SIGSTOP, sometimes for longer than the robots wait."""
    _pause(world, "service", 4.0)


@fault(10)
def kill_robot(world: World) -> None:
    """SIGKILL while it acts, writes and uploads."""
    who = _some(world)
    world.kill(who)
    world.start_robot(who)


@fault(6)
def stop_robot(world: World) -> None:
    """SIGSTOP: its connections stand still half used."""
    _pause(world, _some(world), 3.0)


@fault(2)
def end_robot(world: World) -> None:
    """SIGTERM: it uploads everything and ends in order."""
    who = _some(world)
    world.end(who)
    world.start_robot(who)


@fault(2)
def kill_reader(world: World) -> None:
    """SIGKILL of the learner's reader."""
    world.kill("reader")
    world.start_reader()


@fault(3)
def stop_reader(world: World) -> None:
    """A reader that stands still in the middle of reading."""
    _pause(world, "reader", 2.0)


@fault(2)
def kill_all(world: World) -> None:
    """SIGKILL of everything at once."""
    for who in list(world.processes):
        world.kill(who)
    world.start_all()


# ------------------------------------------------------------------ disks


@fault(4, needs_disks=True)
def cut_power_of_trainer(world: World) -> None:
    """The trainer's disk stops without a flush."""
    world.trainer.cut_power()
    world.remount(world.trainer)


@fault(4, needs_disks=True)
def cut_power_of_robots(world: World) -> None:
    """The disk of half of the robots stops without a flush."""
    disk = world.rng.choice(world.spools)
    disk.cut_power()
    world.remount(disk)


@fault(3, needs_disks=True)
def fill_trainer(world: World) -> None:
    """No byte is free in the store."""
    world.trainer.fill()
    time.sleep(world.rng.uniform(0.2, 1.5))
    world.trainer.empty()


@fault(2, needs_disks=True)
def fill_trainer_and_restart(world: World) -> None:
    """The service dies on a full disk and has to start again when there is room."""
    world.trainer.fill()
    time.sleep(0.3)
    world.kill("service")
    world.trainer.empty()
    world.start_service()


@fault(4, needs_disks=True)
def fill_robots(world: World) -> None:
    """No byte is free in the spools of half of the robots."""
    disk = world.rng.choice(world.spools)
    disk.fill()
    time.sleep(world.rng.uniform(0.2, 1.5))
    disk.empty()


@fault(2, needs_disks=True)
def kill_robot_on_full_disk(world: World) -> None:
    """A robot dies and starts again while its disk is full."""
    who = _some(world)
    world.disk_of(who).fill()
    time.sleep(0.2)
    world.kill(who)
    world.start_robot(who)
    time.sleep(1.0)
    world.disk_of(who).empty()


@fault(2, needs_disks=True)
def read_only_trainer(world: World) -> None:
    """The trainer's disk refuses writes, as after an error, and is mounted anew later."""
    world.trainer.turn_read_only()
    time.sleep(world.rng.uniform(0.2, 1.0))
    world.remount(world.trainer)


@fault(2, needs_disks=True)
def read_only_robots(world: World) -> None:
    """The disk of half of the robots refuses writes."""
    disk = world.rng.choice(world.spools)
    disk.turn_read_only()
    time.sleep(world.rng.uniform(0.2, 1.0))
    world.remount(disk)


# ------------------------------------------------------------------ time


@fault(4)
def jump_clock(world: World) -> None:
    """Every wall clock jumps, by seconds or by years, forwards or back."""
    hours = world.rng.choice((0.001, 1.0, 24.0, 24.0 * 3650))
    world.clock.jump_to(int(world.rng.choice((-1, 1)) * hours * 3.6e12))


# ------------------------------------------------------------------ files


def _waiting_chunk(world: World) -> tuple[str, Path, ChunkKey] | None:
    """Stop a robot and give a chunk that waits in its spool; the caller lets it go on."""
    for who in world.rng.sample(world.names, len(world.names)):
        world.signal(who, signal.SIGSTOP)
        chunks = [c for s in sessions_in(world.spool_of(who)) for c in s.waiting()]
        if chunks:
            chunk = world.rng.choice(chunks)
            return who, chunk.path, chunk.key
        world.signal(who, signal.SIGCONT)
    return None


def _injure(world: World, change: Callable[[bytes], bytes]) -> None:
    """Damage a sealed chunk in a robot's spool, and note which steps it held."""
    found = _waiting_chunk(world)
    if found is None:
        return
    who, path, key = found
    data = path.read_bytes()
    with contextlib.suppress(Exception):  # one that was injured before stays as it was noted
        meta = check_chunk(data, key, max_bytes=1 << 30).meta
        world.injured[name(key)] = Injured(first_step=meta.first_step, steps=meta.steps)
        path.write_bytes(change(data))
    world.signal(who, signal.SIGCONT)


@fault(3)
def flip_bit_in_spool(world: World) -> None:
    """A sealed chunk rots before it is sent."""
    _injure(world, lambda data: _flipped(world, data))


@fault(2)
def tear_chunk_in_spool(world: World) -> None:
    """A sealed chunk loses its end."""
    _injure(world, lambda data: data[: world.rng.randrange(len(data))])


@fault(3)
def leave_torn_files(world: World) -> None:
    """A robot dies and leaves halves of temporary files."""
    who = _some(world)
    world.kill(who)
    sessions = sessions_in(world.spool_of(who))
    for session in world.rng.sample(sessions, min(2, len(sessions))):
        journal = session.journal()
        seq = journal.next_seq if journal else 0
        for text in (f"{seq:08d}.mcap.{os.urandom(4).hex()}.tmp", "session.json.0.tmp"):
            (session.path / text).write_bytes(os.urandom(world.rng.randrange(500)))
    world.start_robot(who)


def _acknowledged(world: World) -> tuple[ChunkKey, Path, str] | None:
    """Find an acknowledged chunk whose good copy the robot still keeps: key, copy, hash."""
    acks = world.proxy.acks.since(max(0, len(world.proxy.acks) - 400))
    acks = acks[: -len(acks) // 4]  # the uploader is done with these
    for path, sha256 in world.rng.sample(acks, len(acks)):
        robot, session, seq = path.split("/")
        key = ChunkKey(robot, session, int(seq))
        kept = chunk_path(world.spool_of(robot), key)
        kept = kept.parent / SENT / kept.name
        if robot == world.greedy or name(key) in world.injured or not kept.exists():
            continue  # at its bound the greedy one gives up what it should send again
        if hashlib.sha256(kept.read_bytes()).hexdigest() == sha256:
            return key, kept, sha256
    return None


def _send_again(world: World, harm: Callable[[Path], None] | None) -> None:
    """Harm a stored file, have the robot send its copy again, and expect it to be mended."""
    found = _acknowledged(world)
    if found is None:
        return
    key, kept, sha256 = found
    stored = chunk_path(world.store, key)
    if harm is not None:
        harm(stored)
    kept.rename(kept.parents[1] / kept.name)

    def mended() -> bool:
        with contextlib.suppress(OSError):
            whole = hashlib.sha256(stored.read_bytes()).hexdigest() == sha256
            return whole and kept.exists()
        return False

    try:
        wait_until(mended, f"{name(key)} to be whole again in the store and acknowledged", 60.0)
    except Stuck as error:
        world.found.append(str(error))


def _flipped(world: World, data: bytes) -> bytes:
    changed = bytearray(data)
    changed[world.rng.randrange(len(changed))] ^= 1 << world.rng.randrange(8)
    return bytes(changed)


@fault(3)
def flip_bit_in_store(world: World) -> None:
    """A stored file rots; the robot that still has it sends it again."""
    _send_again(world, lambda path: _rewrite(path, _flipped(world, path.read_bytes())))


@fault(2)
def tear_file_in_store(world: World) -> None:
    """A stored file loses its end; the robot that still has it sends it again."""
    _send_again(world, lambda path: os.truncate(path, world.rng.randrange(path.stat().st_size)))


@fault(2)
def lose_file_in_store(world: World) -> None:
    """A stored file is gone; the robot that still has it sends it again."""
    _send_again(world, lambda path: path.unlink())


def _rewrite(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:  # in place, as a disk rots
        file.write(data)


@fault(3)
def send_again(world: World) -> None:
    """An acknowledged chunk comes a second time."""
    _send_again(world, None)


# ------------------------------------------------------------------ access


@fault(3)
def revoke_token(world: World) -> None:
    """A robot's token is taken away and given back."""
    who = _some(world)
    world.write_tokens([n for n in world.names if n != who])
    time.sleep(world.rng.uniform(0.3, 1.5))
    world.write_tokens(world.names)


def _put(world: World, path: str, data: bytes, token: str, **headers: str) -> int:
    """Upload as a stranger would; returns the status, 0 where the connection was cut."""
    connection = http.client.HTTPConnection("127.0.0.1", world.port, timeout=10.0)
    sha256 = hashlib.sha256(data).hexdigest()
    fields = {"X-Content-SHA256": sha256, "Authorization": f"Bearer {token}"} | headers
    try:
        connection.request("PUT", f"/v1/chunks/{path}", body=data, headers=fields)
        return connection.getresponse().status
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()


@fault(3)
def duplicate_under_other_number(world: World) -> None:
    """Stored bytes come again under another number, session and robot."""
    found = _acknowledged(world)
    if found is None:
        return
    key, kept, _ = found
    data, token = kept.read_bytes(), world.tokens[key.robot]
    other = next((n for n in world.names if n != key.robot), key.robot)
    for path, given in (
        (f"{key.robot}/{key.session}/{key.seq + 500_000}", token),
        (f"{key.robot}/{os.urandom(16).hex()}/{key.seq}", token),
        (f"{other}/{key.session}/{key.seq}", world.tokens[other]),
        (f"{other}/{key.session}/{key.seq}", token),
    ):
        if other == key.robot and given == token and path == name(key):
            continue
        if _put(world, path, data, given) in (200, 201):
            world.found.append(f"{name(key)} was taken again as {path}")


@fault(4)
def hostile_uploads(world: World) -> None:
    """Garbage, wrong hashes, absurd numbers, no token and other names."""
    who = _some(world)
    token, session = world.tokens[who], os.urandom(16).hex()
    garbage = world.rng.randbytes(3000)
    taken = [
        path
        for path, data, given in (
            (f"{who}/{session}/0", garbage, token),
            (f"{who}/{session}/0", b"", token),
            (f"{who}/{session}/{'9' * 4301}", garbage, token),
            (f"{who}/{session}/{2**63}", garbage, token),
            (f"{who}/..%2f..%2f/0", garbage, token),
            (f"{who}/{session}/0", garbage, "wrong"),
            (f"nobody/{session}/0", garbage, token),
        )
        if _put(world, path, data, given) in (200, 201)
    ]
    if _put(world, f"{who}/{session}/1", garbage, token, **{"X-Content-SHA256": "0" * 64}) == 201:
        taken.append("a wrong hash")
    if taken:
        world.found.append(f"the service took {taken}")


@fault(2)
def silent_connections(world: World) -> None:
    """Connections that say nothing, half a head, or half a body, and stay."""
    half = b"PUT /v1/chunks/x/y/0 HTTP/1.1\r\nHost: a\r\n"
    body = half + b"Content-Length: 100000\r\n\r\nabc"
    with contextlib.ExitStack() as held:
        for index in range(60):
            with contextlib.suppress(OSError):
                made = socket.create_connection(("127.0.0.1", world.port), timeout=2.0)
                held.enter_context(made)
                made.sendall((b"", half, body)[index % 3])
        time.sleep(1.0)


@fault(2)
def lock_ledger(world: World) -> None:
    """Another process holds the ledger for a while."""
    with contextlib.closing(sqlite3.connect(world.store / LEDGER_NAME, timeout=30.0)) as db:
        db.execute("BEGIN IMMEDIATE")
        time.sleep(world.rng.uniform(0.2, 1.5))
        db.execute("ROLLBACK")


# ------------------------------------------------------------------ network


@fault(3)
def cut_every_connection(world: World) -> None:
    """The proxy cuts whatever comes, for up to two seconds."""
    world.proxy.dead_until = time.monotonic() + world.rng.uniform(0.5, 2.0)


@fault(3)
def swallow_everything(world: World) -> None:
    """A black hole: requests are taken and nothing comes back."""
    world.proxy.silent_until = time.monotonic() + world.rng.uniform(0.5, 4.0)


@fault(10)
def misbehave(world: World) -> None:
    """The proxy does one of its mischiefs to the next requests."""
    world.proxy.orders.extend([world.rng.choice(MOODS)] * world.rng.randint(1, 5))


def spool_session(world: World, robot: str, session: str) -> SpoolSession:
    """Give a robot's session in its spool."""
    return SpoolSession(world.spool_of(robot) / robot / session)

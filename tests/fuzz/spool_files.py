"""Files of a robot's spool that the next start reads: the open log and the lines of sessions."""

from __future__ import annotations

import random
import struct
import tempfile
import zlib
from pathlib import Path

import zstandard

from tests.fuzz import mutations
from wm_core.format.chunk import ChunkMeta, Step, check_chunk, encode_step, join_steps
from wm_core.link.robot.finished import FINISHED_NAME, finished_in
from wm_core.link.robot.journal import Journal
from wm_core.link.robot.open_log import OpenLog, read_log

_FRONT = 12  #: bytes in front of the first record


def open_log(meta: ChunkMeta, steps: list[Step], *, ended: bool) -> bytes:
    """Give the bytes of a log of ``steps``."""
    with tempfile.TemporaryDirectory() as folder:
        log = OpenLog(Path(folder) / "open.log", sync_s=1.0)
        log.begin(meta)
        log.append([encode_step(step, meta.spec) for step in steps])
        if ended:
            log.end(meta)
        return (Path(folder) / "open.log").read_bytes()


def decode_open_log(data: bytes) -> None:
    """Read a log as recovery does: what is made of it has to be a chunk, or is refused."""
    found = read_log(data)
    if found is not None and found.steps:
        check_chunk(join_steps(found.steps, found.meta), found.meta.key, max_bytes=2**29)


def edit_log(data: bytes, rng: random.Random) -> bytes:
    """Change what one record holds, and give it the right checksum."""
    seq, records, at = int.from_bytes(data[8:_FRONT], "little"), [], _FRONT
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        records.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    chosen = rng.randrange(len(records))
    kind = records[chosen][:1]
    content = zstandard.decompress(records[chosen][1:])
    edit = mutations.edit_bytes if kind == b"s" else mutations.edit_json
    records[chosen] = kind + zstandard.compress(edit(content, rng))
    packed = (struct.pack("<II", len(r), zlib.crc32(r, seq)) + r for r in records)
    return data[:_FRONT] + b"".join(packed)


def decode_finished(data: bytes) -> None:
    """Read the lines of sessions that were removed; a bad one costs no other."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rover" / FINISHED_NAME
        path.parent.mkdir()
        good = finished_lines()[0].split(b"\n")[0]
        path.write_bytes(data + b"\n" + good + b"\n")
        journals, _ = finished_in(Path(folder), "rover")
        assert journals[-1].session == "0" * 32 or len(journals) > 1


def finished_lines() -> list[bytes]:
    """Lines of two sessions behind the sums of older ones."""
    lines = [Journal(robot="rover", session=digit * 32, next_seq=3) for digit in "01"]
    text = "\n".join(line.model_dump_json() for line in lines)
    folded = '{"folded":{"sessions":2,"chunks":3,"steps":9,"dropped_steps":{"spool_full":4}}}'
    return [text.encode(), f"{folded}\n{text}\n".encode()]

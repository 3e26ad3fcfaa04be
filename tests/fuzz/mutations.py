"""Changes good inputs field by field: lengths, counts, varints, JSON values, members of archives.

Everything is decided by a ``random.Random``, so that a seed, hypothesis or a fuzzer can choose.
"""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from typing import Any

from tests.wm_core.format.forge import take_apart
from wm_core.format import records

NUMBERS = (
    0, 1, 2, 3, 4, 7, 8, 15, 16, 63, 64, 127, 128, 255, 256, 4095, 4096, 4097, 65535, 65536,
    2**24, 2**30, 2**31 - 4097, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63,
    2**64 - 1,
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1, 0.5, -0.0, 1e30, 1e308, float("nan"), float("inf"), "", "x",
    "\x1b[2J", "\u202e", "a" * 3000, "../../etc/passwd", "1", [], {}, [[]], [0] * 500,
    {"a": 1}, {str(i): i for i in range(200)}, 10**30, -(2**63), *NUMBERS,
)  # fmt: skip


def varint(value: int) -> bytes:
    """A number as protobuf writes it, of at most ten bytes."""
    value &= 2**64 - 1
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def edit_bytes(data: bytes, rng: random.Random) -> bytes:
    """Make one change to ``data``."""
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 40)))
    number = rng.choice(NUMBERS)
    match rng.randrange(8):
        case 0:
            return data[:at] + bytes([rng.randrange(256)]) + data[at + 1 :]
        case 1:
            width = rng.choice((1, 2, 4, 8))
            packed = (number & (1 << 8 * width) - 1).to_bytes(width, rng.choice(("little", "big")))
            return data[:at] + packed + data[at + width :]
        case 2:
            return data[:at] + data[end:]
        case 3:
            return data[:at] + data[at:end] * rng.choice((2, 3, 50)) + data[end:]
        case 4:
            return data[:at]
        case 5:
            return data[:at] + varint(number) + data[at:]
        case 6:
            return data[:at] + struct.pack("<d", rng.choice((1e300, -1e30, float("nan"), -0.0)))
        case _:
            other = rng.randrange(len(data) + 1)
            return data[:at] + data[other : other + 64] + data[at:]


def edit_json(text: bytes, rng: random.Random) -> bytes:
    """Replace, remove, rename or repeat one value of a JSON document, at any depth."""
    value = json.loads(text)
    holders: list[Any] = [value]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [item for item in inner if isinstance(item, dict | list)]
    holder = rng.choice(holders)
    if not holder:
        return text
    key: Any = rng.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    new = rng.choice(VALUES)
    match rng.randrange(6):
        case 0 | 1 | 2:
            holder[key] = new
        case 3:
            del holder[key]
        case 4 if isinstance(holder, dict):
            holder[str(new)[:80]] = holder.pop(key)
        case 5 if isinstance(holder, dict):
            return json.dumps(value).encode()[:-1] + b',"%s":1}' % str(key).encode()
        case _:
            holder[key] = [holder[key]] * rng.choice((1, 2, 70))
    return json.dumps(value).encode()


def edit_chunk(data: bytes, rng: random.Random) -> bytes:
    """Change a record, the meta or a packed block of a chunk; its checksums stay right."""
    chunk = take_apart(data)
    kind = rng.randrange(8)
    if kind == 0:
        meta = edit_json(chunk.metadata["wm_chunk"]["meta"].encode(), rng)
        chunk.metadata["wm_chunk"]["meta"] = meta.decode("utf-8", "replace")
    elif kind in (1, 2):  # a record that follows from the others
        opcode, number = rng.choice((1, 2, 6, 7, 8, 11, 12, 13, 15, 3, 4)), rng.randrange(4)

        def change(own: int, count: int, body: bytes) -> Any:
            if (own, count) != (opcode, number):
                return body
            several = rng.choice((0, 1, 2, 2000))
            return edit_bytes(body, rng) if rng.randrange(4) else [(own, body)] * several

        chunk.change = change
    elif kind == 3:
        pack = chunk.compress
        chunk.compress = lambda inner: edit_bytes(pack(inner), rng)
    else:
        block = rng.choice(chunk.blocks)
        at = rng.randrange(len(block))
        opcode, body = block[at]
        match rng.randrange(6):
            case 0:
                block[at : at + 1] = [(opcode, body)] * rng.choice((0, 2, 3000))
            case 1:
                block[at] = (rng.randrange(20), body)
            case 2:
                other = rng.randrange(len(block))
                block[at], block[other] = block[other], block[at]
            case _:
                block[at] = (opcode, edit_bytes(body, rng))
        if rng.randrange(6) == 0:
            block += [(records.MESSAGE, bytes(rng.randrange(40)))] * 2000
    return chunk.build()


Fields = list[tuple[int, int, Any]]  #: number, wire type, value


def _fields(data: bytes) -> Fields | None:
    """Read one level of protobuf; None where it is none."""
    found: Fields = []
    at = 0

    def number() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise IndexError

    try:
        while at < len(data):
            tag = number()
            if tag & 7 == 0:
                found.append((tag >> 3, 0, number()))
            elif tag & 7 == 2:
                size = number()
                if size > len(data) - at:
                    return None
                found.append((tag >> 3, 2, data[at : at + size]))
                at += size
            elif tag & 7 in (1, 5):
                size = 8 if tag & 7 == 1 else 4
                found.append((tag >> 3, tag & 7, data[at : at + size]))
                at += size
            else:
                return None
    except IndexError:
        return None
    return found


def _message(fields: Fields) -> bytes:
    out = b""
    for number, wire, value in fields:
        out += varint(number << 3 | wire)
        out += varint(value) if wire == 0 else value if wire != 2 else varint(len(value)) + value
    return out


def edit_protobuf(data: bytes, rng: random.Random, depth: int = 0) -> bytes:
    """Change one field of a message, at any depth; the lengths around it stay right."""
    fields = _fields(data)
    if not fields:
        return edit_bytes(data, rng)
    at = rng.randrange(len(fields))
    number, wire, value = fields[at]
    inside = wire == 2 and 1 < len(value) < (2**20 if depth == 0 else 2**13)
    if inside and _fields(value) and rng.randrange(8):
        fields[at] = (number, 2, edit_protobuf(value, rng, depth + 1))
        return _message(fields)
    match rng.randrange(6):
        case 0:
            del fields[at]
        case 1:
            fields[at : at + 1] = [(number, wire, value)] * rng.choice((2, 3, 300))
        case 2:
            fields[at] = (rng.choice((*range(32), 2**28)), wire, value)
        case 3:
            fields[at] = (number, 0, rng.choice(NUMBERS))
        case 4:
            fields[at] = (number, 2, edit_bytes(value if wire == 2 else b"\x00", rng))
        case _:
            out = _message(fields[:at]) + varint(number << 3 | rng.randrange(8))
            return out + varint(rng.choice(NUMBERS)) + _message(fields[at + 1 :])
    return _message(fields)


def edit_archive(data: bytes, rng: random.Random) -> bytes:
    """Change a member of a .npz, or the archive around it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    at = rng.randrange(len(members))
    name, body = members[at]
    match rng.randrange(8):
        case 0:
            members[at] = (str(rng.choice(VALUES))[:200], body)
        case 1:
            del members[at]
        case 2:
            members += [(f"{i}.npy", body) for i in range(rng.choice((1, 600)))]
        case 3 | 4:
            members[at] = (name, edit_bytes(body[:128], rng) + body[128:])  # its header
        case 5:
            shape = rng.choice(("(2**60,)", "(-1,)", "()", "(4294967296, 4294967296)", "(1,) * 9"))
            members[at] = (name, body.replace(b"'shape': (", b"'shape': " + shape.encode()))
        case _:
            members[at] = (name, edit_bytes(body, rng))
    out = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2))
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, body in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\x00", "")), body, method)
    return edit_bytes(out.getvalue(), rng) if rng.randrange(3) == 0 else out.getvalue()

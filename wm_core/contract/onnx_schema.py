"""Reads the messages of an ONNX file strictly: what a policy may say, and in one encoding only.

Two readers of protobuf may differ over a field that comes twice, a number that is longer than it
need be, or a field of another type than its own, so that one checks what the other never sees.
None of that is written by any exporter, and all of it is refused here, as is every field that a
policy has no use for.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_wire import (
    BYTES,
    FIXED32,
    FIXED64,
    VARINT,
    Budget,
    varints,
    wire_fields,
)

MAX_FIELDS = 2_000_000  #: of a whole file, which bounds the time that reading it takes
MAX_TEXT_BYTES = 4096  #: of a name
MAX_CARD_BYTES = 500_000  #: of an entry of the metadata

_MANY = "*"  #: behind the kind of a field that may come more than once


class OnnxMessage(NamedTuple):
    """Holds the fields of one message by name; what may come more than once is a list."""

    kind: str
    content: dict[str, Any]

    def many(self, name: str) -> list[Any]:
        """List the values of a field that may come more than once."""
        found: list[Any] = self.content.get(name, [])
        return found

    def number(self, name: str, default: int = 0) -> int:
        """Give the number in a field, or ``default`` where it is left out."""
        return int(self.content.get(name, default))

    def text(self, name: str) -> str:
        """Give the text in a field; empty where it is left out."""
        return str(self.content.get(name, ""))


#: message -> number of the field -> its name and kind: int, float, text, long (text), blob
#: (bytes), ints, floats, doubles (packed or one by one), else a message
_MESSAGES: dict[str, dict[int, tuple[str, str]]] = {
    "model": {
        1: ("ir_version", "int"),
        2: ("producer_name", "text"),
        3: ("producer_version", "text"),
        4: ("domain", "text"),
        5: ("model_version", "int"),
        6: ("doc_string", "text"),
        7: ("graph", "graph"),
        8: ("opset_import", "opset*"),
        14: ("metadata_props", "entry*"),
    },
    "opset": {1: ("domain", "text"), 2: ("version", "int")},
    "entry": {1: ("key", "text"), 2: ("value", "long")},
    "graph": {
        1: ("node", "node*"),
        2: ("name", "text"),
        5: ("initializer", "tensor*"),
        10: ("doc_string", "text"),
        11: ("input", "value*"),
        12: ("output", "value*"),
        13: ("value_info", "value*"),
    },
    "node": {
        1: ("input", "text*"),
        2: ("output", "text*"),
        3: ("name", "text"),
        4: ("op_type", "text"),
        5: ("attribute", "attribute*"),
        6: ("doc_string", "text"),
        7: ("domain", "text"),
    },
    "attribute": {
        1: ("name", "text"),
        2: ("f", "float"),
        3: ("i", "int"),
        4: ("s", "text"),
        5: ("t", "tensor"),
        7: ("floats", "floats"),
        8: ("ints", "ints"),
        9: ("strings", "text*"),
        13: ("doc_string", "text"),
        20: ("type", "int"),
    },
    "tensor": {
        1: ("dims", "ints"),
        2: ("data_type", "int"),
        4: ("float_data", "floats"),
        5: ("int32_data", "ints"),
        7: ("int64_data", "ints"),
        8: ("name", "text"),
        9: ("raw_data", "blob"),
        10: ("double_data", "doubles"),
        11: ("uint64_data", "ints"),
        12: ("doc_string", "text"),
        14: ("data_location", "int"),
    },
    "value": {1: ("name", "text"), 2: ("type", "type"), 3: ("doc_string", "text")},
    "type": {1: ("tensor_type", "tensor_type")},
    "tensor_type": {1: ("elem_type", "int"), 2: ("shape", "shape")},
    "shape": {1: ("dim", "dim*")},
    "dim": {1: ("dim_value", "int"), 2: ("dim_param", "text"), 3: ("denotation", "text")},
}

#: what some fields that no policy has would mean
_REFUSED = {
    ("model", 20): "expected no training, it has training information",
    ("model", 25): "expected plain operators, it has functions",
    ("graph", 15): "expected dense weights, it has sparse ones",
    ("attribute", 6): "expected no control flow, it has subgraphs",
    ("attribute", 11): "expected no control flow, it has subgraphs",
    ("attribute", 22): "expected dense weights, it has sparse ones",
    ("attribute", 23): "expected dense weights, it has sparse ones",
    ("tensor", 13): "expected every weight in it, it has external data",
}

_WIRES = {"int": VARINT, "float": FIXED32}


def read_model(model: bytes) -> OnnxMessage:
    """Read a whole ONNX file; large contents stay views of ``model``.

    Raises:
        PolicyRefused: for what is no ONNX model, or has a field that no policy has.
    """
    try:
        return _read(memoryview(model), "model", Budget(MAX_FIELDS))
    except (IndexError, TypeError, UnicodeDecodeError) as error:
        raise PolicyRefused(
            f"policy file does not load: it is no ONNX model that this project writes ({error})"
        ) from error


def _read(message: int | memoryview, kind: str, budget: Budget) -> OnnxMessage:
    known, content = _MESSAGES[kind], dict[str, Any]()
    for number, value, wire in wire_fields(message, budget):
        if number not in known:
            odd = f"expected no field {number} in a {kind}, it has one"
            raise PolicyRefused(f"policy file does not load: {_REFUSED.get((kind, number), odd)}")
        name, what = known[number]
        if what in ("ints", "floats", "doubles"):
            content.setdefault(name, []).append(_numbers(value, wire, what, budget))
            continue
        one = what.removesuffix(_MANY)
        if wire != _WIRES.get(one, BYTES):
            raise TypeError(f"{kind}.{name} has another wire type than its own")
        got = _one(value, one, budget)
        if what.endswith(_MANY):
            content.setdefault(name, []).append(got)
        elif name in content:
            raise PolicyRefused(f"policy file: expected one {name} in a {kind}, it has two")
        else:
            content[name] = got
    return OnnxMessage(kind, content)


def _one(value: int | memoryview, kind: str, budget: Budget) -> Any:
    if kind in ("int", "float", "blob"):
        return value
    if kind in ("text", "long"):
        most = MAX_CARD_BYTES if kind == "long" else MAX_TEXT_BYTES
        assert isinstance(value, memoryview)
        if len(value) > most:
            raise PolicyRefused(
                f"policy file: expected texts of at most {most} bytes, it has one of {len(value)}"
            )
        return bytes(value).decode()
    return _read(value, kind, budget)


def _numbers(value: int | memoryview, wire: int, kind: str, budget: Budget) -> memoryview | int:
    """Take numbers that stand packed, as bytes, or one that stands alone."""
    alone = {"ints": VARINT, "floats": FIXED32, "doubles": FIXED64}[kind]
    if wire not in (BYTES, alone):
        raise TypeError("numbers have another wire type than their own")
    size = {"floats": 4, "doubles": 8}.get(kind)
    if size and isinstance(value, memoryview) and len(value) % size:
        raise IndexError("packed numbers end within one")
    return value


def signed(value: int) -> int:
    """Read a number of 64 bits as one that may be negative."""
    return value - (1 << 64) if value >> 63 else value


def ints_of(pieces: list[memoryview | int], most: int = 64) -> list[int]:
    """Read at most ``most`` signed numbers of 64 bits; raises ``PolicyRefused`` for more."""
    found: list[int] = []
    for piece in pieces:
        for value in [piece] if isinstance(piece, int) else varints(piece):
            found.append(signed(value))
            if len(found) > most:
                raise PolicyRefused(f"policy file: expected at most {most} numbers, it has more")
    return found


def floats_of(pieces: list[memoryview], kind: str, most: int) -> list[float]:
    """Read at most ``most`` numbers of ``kind`` floats or doubles; raises ``PolicyRefused``."""
    size, dtype = (4, "<f4") if kind == "floats" else (8, "<f8")
    if sum(len(piece) for piece in pieces) > most * size:
        raise PolicyRefused(f"policy file: expected at most {most} numbers, it has more")
    return [float(x) for piece in pieces for x in np.frombuffer(piece, dtype)]

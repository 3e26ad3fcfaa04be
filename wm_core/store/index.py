"""Indexes a chunk file: everything small in it, and where its images and large vectors lie.

Whoever verifies a chunk writes its index beside it, as ``<seq>.idx``, so that the file is not
decoded again.  A sidecar is a cache: it names the hash of the chunk that it was made from and ends
with a checksum; one that is missing, damaged or of other bytes is made again, and a folder that
cannot be written to only costs time.  It is a line of JSON and the two arrays as they lie in
memory: an archive of NumPy's takes ten times as long to read.
"""

from __future__ import annotations

import contextlib
import json
import stat
import zlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wm_core.contract.errors import ChunkRefused
from wm_core.contract.files import json_text, write_atomically
from wm_core.contract.spec import Spec
from wm_core.contract.step import FLAGS, FLOATS, NUMBERS, usable
from wm_core.format.chunk import ChunkKey, Columns, chunk_path
from wm_core.store.examine import Examined, check, read_stored
from wm_core.store.ledger import ChunkRow

INDEX_VERSION = 2
PICTURES_VERSION = 3  #: of a chunk with JPEG pictures
SIDECARS = ("idx", "idx.npz")  #: what the name of an index ends with; the second until 0.1.0
LARGE = 256  #: numbers; a larger vector is read from the chunk, as images are
_CRC_BYTES = 4
FLAG_BITS = {name: 1 << bit for bit, name in enumerate(FLAGS)}  #: of the field ``flags``
BLOCKS = np.dtype([("offset", "<i8"), ("size", "<i8"), ("unpacked", "<i8"), ("crc", "<u4")])


class Index(NamedTuple):
    """Holds what is known of one chunk file without opening it."""

    spec: Spec
    steps: np.ndarray  #: (n,) of ``step_dtype(spec)``
    blocks: np.ndarray  #: (m,) of ``BLOCKS``: compressed runs of the file
    codecs: tuple[str, ...] = ()  #: cameras whose images are JPEG pictures


def step_dtype(spec: Spec) -> np.dtype:
    """Describe a step in memory: ``vector.<k>``, but of images ``block.<k>`` and ``offset.<k>``.

    ``block`` counts the blocks of the file; ``offset`` is that of the pixels in the unpacked one.
    A vector of more than ``LARGE`` numbers is kept as images are, so that neither the disk nor
    the memory holds it twice; ``worst.<k>`` is its number that is farthest from 0, NaN first.
    """
    numbers = {name: dtype.kind for name, dtype in NUMBERS.items()}
    fields: list[tuple] = [("action", "<f4", (spec.action.size,))]
    fields += [(name, "<f4") for name, kind in numbers.items() if kind == "f"]
    fields += [("flags", "u1")]
    fields += [(name, "<i8") for name, kind in numbers.items() if kind == "i"]
    large = large_vectors(spec)
    fields += [(f"vector.{k}", "<f4", s.shape) for k, s in spec.vectors.items() if k not in large]
    fields += [(f"worst.{key}", "<f4") for key in large]
    for key in (*spec.images, *large):
        fields += [(f"block.{key}", "<i4"), (f"offset.{key}", "<i8")]
    return np.dtype(fields)


def large_vectors(spec: Spec) -> list[str]:
    """Name the vectors of ``spec`` that an index leaves in the chunk."""
    return [key for key, vector in spec.vectors.items() if vector.size > LARGE]


def step_number(steps: np.ndarray, name: str) -> np.ndarray:
    """Read the number ``name`` of ``steps`` (...), one of ``contract.step.NUMBERS``, (...)."""
    return (steps["flags"] & FLAG_BITS[name]) != 0 if name in FLAG_BITS else steps[name]


def index_path(root: Path, key: ChunkKey) -> Path:
    """Locate the sidecar of a chunk."""
    return chunk_path(root, key).with_suffix(".idx")


def load_index(root: Path, row: ChunkRow, *, keep: bool = True) -> Index:
    """Read the index of one chunk from its sidecar, or make a lost one again from the chunk.

    Args:
        root: the store's folder.
        row: of the chunk.
        keep: write what was made again beside the chunk.

    Raises:
        OSError: where the chunk file cannot be read.
        ChunkRefused: where it is not what the ledger took in.
    """
    path = index_path(root, row.key)
    try:
        return _read_sidecar(path, row)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError, ChunkRefused):
        with contextlib.suppress(OSError):
            if keep:
                path.unlink()
    data = read_stored(chunk_path(root, row.key), row)
    index = make_index(check(data, row.key, max_bytes=len(data)))
    if len(index.steps) != row.steps:
        raise ChunkRefused(f"expected {row.steps} steps, got {len(index.steps)}")
    if keep:
        write_sidecar(root, row.key, index, row.sha256)
    return index


def make_index(columns: Columns) -> Index:
    """Index a decoded chunk; a step that is not ``usable`` is never valid."""
    spec = columns.meta.spec
    steps = np.zeros(columns.meta.steps, step_dtype(spec))
    flags = {name: columns.numbers[name] for name in FLAGS}
    steps["action"] = columns.action
    for name in NUMBERS.keys() - flags.keys():
        with np.errstate(over="ignore"):
            steps[name] = columns.numbers[name]
    large = large_vectors(spec)
    for key, values in columns.vectors.items():
        if key not in large:
            steps[f"vector.{key}"] = values
            continue
        far = np.abs(values).argmax(1)  # the first NaN, where there is one
        steps[f"worst.{key}"] = np.take_along_axis(values, far[:, None], 1)[:, 0]
        steps[f"block.{key}"] = columns.vector_block[key]
        steps[f"offset.{key}"] = columns.vector_offset[key]
    floats = {name: columns.numbers[name] for name in FLOATS}
    good = usable(spec.action, columns.vectors, columns.action, **floats)
    flags["is_valid"] = flags["is_valid"] & good
    for name, values in flags.items():
        steps["flags"] |= values * np.uint8(FLAG_BITS[name])
    for key in spec.images:
        steps[f"block.{key}"] = columns.image_block[key]
        steps[f"offset.{key}"] = columns.image_offset[key]
    blocks = [(b.offset, b.size, b.unpacked_size, b.crc) for b in columns.recording.blocks]
    return Index(spec, steps, np.array(blocks, BLOCKS), tuple(columns.meta.codecs))


def store_index(root: Path, chunk: Examined) -> None:
    """Write the index of a stored chunk beside it, where it is not there yet."""
    if chunk.columns is not None and not index_path(root, chunk.key).exists():
        write_sidecar(root, chunk.key, make_index(chunk.columns), chunk.sha256)


def write_sidecar(root: Path, key: ChunkKey, index: Index, sha256: str) -> None:
    """Write ``index`` beside the chunk of ``key`` and that hash; do without where it fails."""
    head: dict[str, object] = {
        "version": PICTURES_VERSION if index.codecs else INDEX_VERSION,
        "sha256": sha256,
        "spec": index.spec.model_dump_json(),
        "blocks": len(index.blocks),
    }
    if index.codecs:
        head["jpeg"] = index.codecs
    data = json_text(head).encode() + b"\n" + index.steps.tobytes() + index.blocks.tobytes()
    with contextlib.suppress(OSError):
        crc = zlib.crc32(data).to_bytes(_CRC_BYTES, "little")
        write_atomically(index_path(root, key), data + crc)


def _read_sidecar(path: Path, row: ChunkRow) -> Index:
    if not stat.S_ISREG(path.lstat().st_mode):
        raise ChunkRefused("sidecar is no plain file")
    file = path.read_bytes()
    data, crc = file[:-_CRC_BYTES], file[-_CRC_BYTES:]
    if zlib.crc32(data) != int.from_bytes(crc, "little"):
        raise ChunkRefused("sidecar is damaged")
    text, _, arrays = data.partition(b"\n")
    head = json.loads(text)
    codecs = tuple(head["jpeg"]) if head["version"] == PICTURES_VERSION else ()
    known = PICTURES_VERSION if codecs else INDEX_VERSION
    if head["version"] != known or head["sha256"] != row.sha256:
        raise ChunkRefused("sidecar of another version or of other bytes")
    spec, dtype = _spec(head["spec"]), step_dtype(_spec(head["spec"]))
    size = row.steps * dtype.itemsize
    if len(arrays) != size + head["blocks"] * BLOCKS.itemsize:
        raise ChunkRefused("sidecar does not fit its chunk")
    steps, blocks = np.frombuffer(arrays[:size], dtype), np.frombuffer(arrays[size:], BLOCKS)
    return Index(spec, steps, blocks, codecs)


@lru_cache(maxsize=64)
def _spec(text: str) -> Spec:
    return Spec.model_validate_json(text)

"""Looks at every byte of a bag before the first step is made of it, and names what is damaged.

The hash of what is read makes importing the same bag twice the same import, and a step that was
stored of a damaged bag could not be taken back: so the look comes first.  It costs a second for
each gigabyte or so.
"""

from __future__ import annotations

import contextlib
import hashlib
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
import zstandard
from mcap.stream_reader import StreamReader

from wm_core.contract.errors import RecordingError

METADATA = "metadata.yaml"
_BLOCK = 1 << 20
_INFORMATION = "rosbag2_bagfile_information"
_IN_ADDRESSES = frozenset("%?#")  # what means something in the address of a file


class _Hashing:
    """Is a file that is read once, from begin to end, and hashed on the way."""

    def __init__(self, stream: Any, digest: Any) -> None:
        self._stream, self._digest = stream, digest
        self.place = 0

    def read(self, size: int = -1) -> bytes:
        data: bytes = self._stream.read(size)
        self._digest.update(data)
        self.place += len(data)
        return data


def examine_bag(path: Path) -> str:
    """Read all of a bag; the sha256 of what it holds, in hexadecimal digits.

    Raises:
        RecordingError: for a file that is missing, cut off or damaged, with the place.
    """
    digest = hashlib.sha256()
    for file in storage_files(path):
        with _packed(file) as unpacked:
            _examine(unpacked, file, digest)
    return digest.hexdigest()


def storage_files(path: Path) -> list[Path]:
    """List the files that hold the messages of a bag, in their order.

    Raises:
        RecordingError: where metadata.yaml or one of the files is missing, or it cannot be read.
    """
    if path.is_file():
        if path.suffix == ".db3":
            raise RecordingError(_without_metadata(path.parent))
        return [path]
    if not (path / METADATA).is_file():
        raise RecordingError(_without_metadata(path))
    names = _information(path).get("relative_file_paths")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise RecordingError(f"{path / METADATA}: expected relative_file_paths, a list of names")
    files = [path / Path(name).name for name in names]
    missing = [file.name for file in files if not file.is_file()]
    if missing:
        there = sorted(p.name for p in path.iterdir())
        raise RecordingError(
            f"{path}: {METADATA} names files that are missing: {', '.join(missing)}; the folder "
            f"has {', '.join(there)}"
        )
    return files


def _without_metadata(folder: Path) -> str:
    return (
        f"{folder}: {METADATA} is missing, without which it is not known how messages were "
        f"packed; make it by: ros2 bag reindex {folder} sqlite3"
    )


def _information(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load((path / METADATA).read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        text = " ".join(str(error).split())
        raise RecordingError(
            f"{path / METADATA}: expected YAML that can be read: {text}"
        ) from error
    inner = found.get(_INFORMATION) if isinstance(found, dict) else None
    if not isinstance(inner, dict):
        raise RecordingError(f"{path / METADATA}: expected an entry {_INFORMATION}, got none")
    return inner


@contextlib.contextmanager
def whole_bag(path: Path) -> Iterator[Path]:
    """Give a bag that its library reads: not packed as a whole, and in files that it can name.

    Packed files are unpacked for as long; names with a meaning in an address of SQLite, such as
    ``50%``, get another one by a link.
    """
    files = [] if path.is_file() else storage_files(path)
    packed = any(file.suffix == ".zstd" for file in files)
    odd = any(file.suffix == ".db3" and _IN_ADDRESSES & set(str(file)) for file in files)
    if not packed and not odd:
        yield path
        return
    about = _information(path)
    with tempfile.TemporaryDirectory(prefix="wm-bag-") as folder:
        place, names = Path(folder), []
        for i, file in enumerate(files):
            inner = file.with_suffix("") if file.suffix == ".zstd" else file
            names.append(f"{i}{inner.suffix}")
            if file is inner:
                (place / names[-1]).symlink_to(file.absolute())
                continue
            with _reading(file), file.open("rb") as zstd, (place / names[-1]).open("wb") as out:
                zstandard.ZstdDecompressor().copy_stream(zstd, out)
        about["relative_file_paths"] = names
        if packed:
            about |= {"compression_format": "", "compression_mode": ""}
        (place / METADATA).write_text(yaml.safe_dump({_INFORMATION: about}))
        yield place


@contextlib.contextmanager
def _packed(file: Path) -> Iterator[Path]:
    """Give the file unpacked, where it is packed as a whole."""
    if file.suffix != ".zstd":
        yield file
        return
    needed = file.stat().st_size
    with tempfile.TemporaryDirectory(prefix="wm-bag-") as folder:
        free = shutil.disk_usage(folder).free
        if free < 2 * needed:
            raise RecordingError(
                f"{file}: is packed as a whole ({needed} bytes) and has to be unpacked, for which "
                f"{folder} has {free} bytes free; set TMPDIR to a larger disk"
            )
        out = Path(folder) / file.stem
        with _reading(file), file.open("rb") as packed, out.open("wb") as unpacked:
            zstandard.ZstdDecompressor().copy_stream(packed, unpacked)
        yield out


@contextlib.contextmanager
def _reading(file: Path) -> Iterator[None]:
    try:
        yield
    except (zstandard.ZstdError, OSError) as error:
        raise RecordingError(f"{file}: {error}") from error


def _examine(file: Path, named: Path, digest: Any) -> None:
    if file.suffix == ".mcap":
        _examine_mcap(file, named, digest)
    else:
        _examine_sqlite(file, named, digest)


def _examine_mcap(file: Path, named: Path, digest: Any) -> None:
    """Read every record of an MCAP file and hold it against its checksum."""
    size = file.stat().st_size
    with file.open("rb") as stream:
        hashing = _Hashing(stream, digest)
        begin = 0
        try:
            for record in StreamReader(hashing, emit_chunks=True, validate_crcs=True).records:
                if hasattr(record, "uncompressed_crc"):
                    _check_chunk(record)
                begin = hashing.place
        except Exception as error:  # its reader raises whatever it stumbles over
            what = str(error) or type(error).__name__
            where = f"at byte {begin} of {size}"
            if hashing.place >= size:
                what = f"the file ends too early ({what})"
            raise RecordingError(f"{named}: damaged {where}: {what}") from error


def _check_chunk(chunk: Any) -> None:
    from mcap.stream_reader import get_chunk_data_stream

    get_chunk_data_stream(chunk, validate_crc=True)


def _examine_sqlite(file: Path, named: Path, digest: Any) -> None:
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro&immutable=1", uri=True)
        ) as database:
            found = [row[0] for row in database.execute("PRAGMA quick_check(3)")]
    except sqlite3.DatabaseError as error:
        raise RecordingError(f"{named}: damaged: {error}") from error
    if found != ["ok"]:
        raise RecordingError(f"{named}: damaged: {'; '.join(map(str, found))}")

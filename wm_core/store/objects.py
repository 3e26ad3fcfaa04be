"""Keeps chunks in an object store: written once under their name, read back, listed.

``s3://bucket/prefix`` speaks to any service with the S3 API that honours ``If-None-Match``;
``file:///folder`` or a plain path is a folder, such as a network file system or a USB stick.
Credentials and endpoint of S3 come from the usual environment variables (``AWS_ACCESS_KEY_ID``,
``AWS_SECRET_ACCESS_KEY``, ``AWS_REGION``, ``AWS_ENDPOINT_URL``).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from wm_core.contract.errors import SettingsError, StoreError
from wm_core.contract.extras import install_extras
from wm_core.contract.files import TMP_SUFFIX, write_new
from wm_core.format.chunk import ChunkKey

PREFIX = "chunks"  #: of every name, so that other things may lie beside in the same bucket
_TIMEOUT = "30s"
_LISTED = 1000  # names in one answer of a listing


class Objects(Protocol):
    """Keeps named bytes that are written once and never change; safe to share between threads.

    Every method raises ``StoreError`` where the place cannot be reached or refuses.
    """

    def put_new(self, name: str, data: bytes) -> bool:
        """Write ``data`` durably; returns False, and writes nothing, where ``name`` exists."""
        ...

    def get(self, name: str) -> bytes | None:
        """Read what is stored under ``name``; None where there is nothing."""
        ...

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        """List the names below ``folder``, in order, of which only those behind ``after``."""
        ...

    def folders(self, folder: str) -> list[str]:
        """List the folders directly below ``folder``, with their whole names, in order."""
        ...


def open_objects(url: str) -> Objects:
    """Open the object store at ``url``.

    Raises:
        SettingsError: for another kind of address, or where the library for it is missing.
    """
    parts = urlsplit(url)
    if parts.scheme == "s3" and parts.netloc:
        return BucketObjects(parts.netloc, parts.path.strip("/"))
    if parts.scheme == "file" and parts.path and not parts.netloc:
        return FolderObjects(Path(parts.path))
    if url and not parts.scheme:
        return FolderObjects(Path(url))
    raise SettingsError(
        f"expected an object store like s3://bucket/prefix or file:///folder, got {url!r}"
    )


def object_name(key: ChunkKey) -> str:
    """Name the object of a chunk; raises ``ChunkRefused`` where the key can name none."""
    key.check()
    return f"{session_folder(key.robot, key.session)}/{key.seq:08d}.mcap"


def session_folder(robot: str, session: str) -> str:
    """Name the folder of a session's chunks."""
    return f"{PREFIX}/{robot}/{session}"


class FolderObjects:
    """Keeps objects as files below ``root``, which may be mounted by several machines."""

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser()

    def put_new(self, name: str, data: bytes) -> bool:
        try:
            return write_new(self.root / name, data)
        except OSError as error:
            raise StoreError(f"{self.root / name} could not be written: {error}") from error

    def get(self, name: str) -> bytes | None:
        try:
            return (self.root / name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"{self.root / name} could not be read: {error}") from error

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        for path in self._below(folder):
            name = f"{folder}/{path.name}"
            if name > after and not path.name.endswith(TMP_SUFFIX) and path.is_file():
                yield name

    def folders(self, folder: str) -> list[str]:
        return [f"{folder}/{path.name}" for path in self._below(folder) if path.is_dir()]

    def _below(self, folder: str) -> list[Path]:
        try:
            return sorted((self.root / folder).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return []
        except OSError as error:
            raise StoreError(f"{self.root / folder} could not be listed: {error}") from error


class BucketObjects:
    """Keeps objects in a bucket of a service with the S3 API.

    Args:
        bucket: name of the bucket, which must exist.
        prefix: put before every name; empty for none.
    """

    def __init__(self, bucket: str, prefix: str = "") -> None:
        try:
            import obstore
            from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
            from obstore.store import S3Store
        except ImportError as error:
            raise SettingsError(
                "an address that begins with s3:// needs the package obstore: "
                f"{install_extras('objects')}"
            ) from error
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        self._obstore, self._where = obstore, f"s3://{bucket}/{prefix}".rstrip("/")
        self._exists, self._failures = (
            (AlreadyExistsError, PreconditionError),
            (BaseError, OSError),
        )
        self._bucket: Any = S3Store(
            bucket,
            prefix=prefix or None,
            client_options={"timeout": _TIMEOUT, "allow_http": endpoint.startswith("http://")},
        )

    def put_new(self, name: str, data: bytes) -> bool:
        with self._asking(f"{name} could not be written"):
            try:
                self._obstore.put(self._bucket, name, data, mode="create", use_multipart=False)
            except self._exists:
                return False
            return True

    def get(self, name: str) -> bytes | None:
        with self._asking(f"{name} could not be read"):
            try:
                return bytes(self._obstore.get(self._bucket, name).bytes())
            except FileNotFoundError:
                # a missing bucket answers so too, and must not look like a missing object
                self._obstore.list_with_delimiter(self._bucket, PREFIX)
                return None

    def names(self, folder: str, after: str = "") -> Iterator[str]:
        with self._asking(f"{folder} could not be listed"):
            offset = after or None
            pages = self._obstore.list(self._bucket, folder, offset=offset, chunk_size=_LISTED)
            for page in pages:
                yield from sorted(str(entry["path"]) for entry in page)

    def folders(self, folder: str) -> list[str]:
        with self._asking(f"{folder} could not be listed"):
            found = self._obstore.list_with_delimiter(self._bucket, folder)
            return sorted(str(name) for name in found["common_prefixes"])

    @contextlib.contextmanager
    def _asking(self, failure: str) -> Iterator[None]:
        """Raise every failure of the service as a ``StoreError`` of one line."""
        try:
            yield
        except self._failures as error:
            why = str(error).partition("\n\nDebug source")[0].replace("\n", " ")[:500]
            raise StoreError(f"{self._where}/{failure}: {why}") from error

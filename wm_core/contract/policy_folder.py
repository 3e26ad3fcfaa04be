"""Lays out the files of a policy: a folder per version, and a channel of versions.

A policy is ``policy.onnx``, ``policy.golden.npz`` and, written last, ``policy.manifest.json``.  A
channel, laid out alike on trainer and robot, is ``<channel>/<version:08d>/`` of these and
``<channel>/latest.json``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wm_core.contract.card import Blob, Manifest, blob_of, check_bytes
from wm_core.contract.errors import PolicyRefused, PolicyUnready
from wm_core.contract.files import sync_folder, write_durably
from wm_core.contract.releases import Endorsement

ONNX_NAME = "policy.onnx"
GOLDEN_NAME = "policy.golden.npz"
MANIFEST_NAME = "policy.manifest.json"
ENDORSEMENT_NAME = "policy.manifest.sig.json"
LATEST_NAME = "latest.json"
CHANNEL_PATTERN = r"[a-z0-9_-]{1,64}"
MAX_MANIFEST_BYTES = 1_000_000
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)


def make_manifest(
    onnx: bytes, golden: bytes, weights_sha256: str = "", *, version: int, **about: Any
) -> Manifest:
    """Describe the policy in ``onnx`` and ``golden``; ``about`` are further fields."""
    return Manifest(
        version=version,
        policy=blob_of(ONNX_NAME, onnx),
        golden=blob_of(GOLDEN_NAME, golden),
        weights_sha256=weights_sha256,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **about,
    )


@dataclass(frozen=True)
class PolicyFolder:
    """Reads and writes one version of a policy, by its folder or the ``.onnx`` file in it."""

    path: Path

    @property
    def onnx(self) -> Path:
        """Locate the policy's ONNX file."""
        return self.path if self.path.suffix == ".onnx" else self.path / ONNX_NAME

    @property
    def manifest(self) -> Path:
        """Locate the manifest beside it."""
        return self.onnx.with_name(f"{self.onnx.stem}.manifest.json")

    def write(self, onnx: bytes, golden: bytes, weights_sha256: str = "", **about: Any) -> None:
        """Write the three files durably, the manifest last; ``about`` as in ``make_manifest``."""
        manifest = make_manifest(onnx, golden, weights_sha256, **about)
        write_durably(self.path / ONNX_NAME, onnx)
        write_durably(self.path / GOLDEN_NAME, golden)
        write_durably(self.path / MANIFEST_NAME, manifest.model_dump_json(indent=2).encode())

    def read_manifest(self) -> Manifest:
        """Read the manifest; raises ``PolicyRefused`` unless it is one and names the ONNX file."""
        return self._named(read_plain(self.manifest, MAX_MANIFEST_BYTES))

    def _named(self, content: bytes) -> Manifest:
        manifest = Manifest.parse(content)
        if manifest.policy.name != self.onnx.name:
            raise PolicyRefused(
                f"{self.manifest.name} describes {manifest.policy.name!r}, not {self.onnx.name!r}"
            )
        return manifest

    @property
    def endorsement(self) -> Path:
        """Locate the signatures of the manifest, which need not be there."""
        return self.onnx.with_name(f"{self.onnx.stem}.manifest.sig.json")

    def read_signed(self) -> tuple[bytes, Endorsement]:
        """Read the manifest's bytes and its signatures, which nobody has verified yet.

        Raises:
            PolicyRefused: where one of them is missing or is none, or it names another file.
        """
        if not self.endorsement.exists():
            raise PolicyRefused(
                f"expected {self.endorsement.name} beside the manifest, which is not there: sign "
                "the policy with `wm keys sign`, or let the learner do it (--policy-keys)"
            )
        endorsement = Endorsement.parse(read_plain(self.endorsement, MAX_MANIFEST_BYTES))
        content = read_plain(self.manifest, MAX_MANIFEST_BYTES)
        self._named(content)
        return content, endorsement

    def read(self, blob: Blob, max_bytes: int) -> bytes:
        """Read the file of ``blob``; raises ``PolicyRefused`` unless it is what that names."""
        if Path(blob.name).name != blob.name:
            raise PolicyRefused(f"manifest names {blob.name!r}: expected a plain file name")
        data = read_plain(self.onnx.with_name(blob.name), max_bytes, expected=blob.bytes)
        try:
            check_bytes(data, blob)
        except PolicyRefused as error:  # it may be replaced or copied just now
            raise PolicyUnready(str(error)) from error
        return data

    def files(self) -> list[Path]:
        """Locate the files, there or not; the golden rollout's name is the manifest's."""
        try:
            golden = Path(self.read_manifest().golden.name).name
        except PolicyRefused:
            golden = GOLDEN_NAME
        return [self.onnx, self.onnx.with_name(golden), self.manifest, self.endorsement]

    def fingerprint(self) -> tuple[tuple[int, ...], ...]:
        """Tell apart every state of the files by what the disk says of them, unread."""
        found: list[tuple[int, ...]] = []
        for path in self.files():
            try:
                about = path.stat()
            except OSError:
                found.append((-1,))
            else:
                times = (about.st_mtime_ns, about.st_ctime_ns)
                found.append((about.st_size, *times, about.st_ino))
        return tuple(found)

    def lacks(self) -> str:
        """Say in a few words what is not there yet of a policy that is being copied; or nothing.

        Files that are copied one after the other, in any order, grow to what the manifest says.
        """
        if not self.manifest.exists():
            return f"still being copied, {self.manifest.name} is not there yet"
        try:
            manifest = self.read_manifest()
        except PolicyRefused:
            return (
                f"still being copied, {self.manifest.name} is not whole" if self._grows() else ""
            )
        blobs = (manifest.policy, manifest.golden)
        sizes = [_size(self.onnx.with_name(Path(blob.name).name)) for blob in blobs]
        pairs = [*zip(blobs, sizes, strict=True)]
        if all(size >= blob.bytes for blob, size in pairs):
            return ""
        have = sum(min(size, blob.bytes) for blob, size in pairs)
        return f"still being copied, {have} of {sum(blob.bytes for blob in blobs)} bytes"

    def _grows(self) -> bool:
        """Whether the manifest is the beginning of one."""
        try:
            text = read_plain(self.manifest, MAX_MANIFEST_BYTES).strip()
        except PolicyRefused:
            return False
        return not text or (text.startswith(b"{") and not text.endswith(b"}"))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def read_plain(path: Path, max_bytes: int, *, expected: int | None = None) -> bytes:
    """Read a plain file of at most ``max_bytes``, and of ``expected`` bytes if that is known.

    A pipe or device in its place makes nobody wait, and is not read.

    Raises:
        PolicyRefused: for another kind of file, or a size that is too large; ``PolicyUnready``
            where reading it again later may help.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a device can do something
            raise PolicyRefused(f"cannot read {path}: it is no plain file")
        # and what was put in its place meanwhile must not make the reader wait
        with open(os.open(path, os.O_RDONLY | _AT_ONCE), "rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise PolicyRefused(f"cannot read {path}: it is no plain file")
            if about.st_size > max_bytes:
                raise PolicyRefused(
                    f"{path.name}: at most {max_bytes} bytes are read, it holds {about.st_size}"
                )
            if expected is not None and about.st_size != expected:
                raise PolicyUnready(f"{path.name}: expected {expected} bytes, got {about.st_size}")
            return file.read(about.st_size)
    except OSError as error:
        raise PolicyUnready(f"cannot read {path}: {error.strerror}") from error
    except MemoryError as error:
        raise PolicyUnready(f"cannot read {path}: this machine's memory is too small") from error


def version_folder(home: Path, version: int) -> Path:
    """Locate the folder of ``version`` in a channel's folder ``home``."""
    return home / f"{version:08d}"


def versions_in(home: Path) -> list[int]:
    """List the versions that a channel's folder holds, oldest first."""
    if not home.is_dir():
        return []
    return sorted(int(p.name) for p in home.iterdir() if re.fullmatch(r"\d{8,}", p.name))


def put_version(
    home: Path, content: bytes, files: dict[str, bytes], endorsement: Endorsement | None = None
) -> Path:
    """Place a version's ``files`` and its manifest in ``home`` at once and durably.

    A folder of that version with other content, left by an earlier run, is replaced.

    Args:
        home: folder of the channel.
        content: bytes of the manifest, as they were signed.
        files: content by file name.
        endorsement: signatures of the manifest; None leaves it unsigned.
    """
    target = version_folder(home, Manifest.parse(content).version)
    staged = home / f"{target.name}.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    try:
        for name, data in files.items():
            write_durably(staged / name, data)
        if endorsement is not None:
            signed = endorsement.model_dump_json(indent=1)
            write_durably(staged / ENDORSEMENT_NAME, signed.encode())
        write_durably(staged / MANIFEST_NAME, content)
    except BaseException:
        shutil.rmtree(staged, ignore_errors=True)
        raise
    old = home / f"{target.name}.old.tmp"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(staged, target)
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(home)
    return target


def prune_versions(home: Path, *, keep: int, never: Collection[int]) -> None:
    """Remove all but the newest ``keep`` versions; those in ``never`` are not removed."""
    remove_unfinished_versions(home)
    for version in versions_in(home)[:-keep]:
        if version not in never:
            remove_version(home, version)


def remove_version(home: Path, version: int) -> None:
    """Remove a version from the channel's folder at once, so that a kill leaves no part of it."""
    folder = version_folder(home, version)
    going = folder.with_name(f"{folder.name}.tmp")
    with contextlib.suppress(OSError):  # as long as it cannot be removed, it stays whole
        os.rename(folder, going)
        shutil.rmtree(going, ignore_errors=True)


def remove_unfinished_versions(home: Path) -> None:
    """Remove what a killed writer left of versions; only for who alone writes them."""
    for left in home.glob("*.tmp"):
        shutil.rmtree(left, ignore_errors=True)

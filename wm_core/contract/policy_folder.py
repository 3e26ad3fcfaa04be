"""Lays out the files of a policy: a folder per version, and a channel of versions.

A policy is ``policy.onnx``, ``policy.golden.npz`` and, written last, ``policy.manifest.json``.  A
channel, laid out alike on trainer and robot, is ``<channel>/<version:08d>/`` of these and
``<channel>/latest.json``.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from wm_core.contract.card import Blob, Manifest, blob_of, check_bytes
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.files import sync_folder, write_durably

ONNX_NAME = "policy.onnx"
GOLDEN_NAME = "policy.golden.npz"
MANIFEST_NAME = "policy.manifest.json"
LATEST_NAME = "latest.json"
CHANNEL_PATTERN = r"[a-z0-9_-]{1,64}"
MAX_MANIFEST_BYTES = 1_000_000


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
        manifest = Manifest.parse(_read(self.manifest, MAX_MANIFEST_BYTES))
        if manifest.policy.name != self.onnx.name:
            raise PolicyRefused(
                f"{self.manifest.name} describes {manifest.policy.name!r}, not {self.onnx.name!r}"
            )
        return manifest

    def read(self, blob: Blob, max_bytes: int) -> bytes:
        """Read the file of ``blob``; raises ``PolicyRefused`` unless it is what that names."""
        if Path(blob.name).name != blob.name:
            raise PolicyRefused(f"manifest names {blob.name!r}: expected a plain file name")
        data = _read(self.onnx.with_name(blob.name), max_bytes)
        check_bytes(data, blob)
        return data


def _read(path: Path, max_bytes: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise PolicyRefused(f"cannot read {path}: {error.strerror}") from error
    if len(data) > max_bytes:
        raise PolicyRefused(f"{path.name}: at most {max_bytes} bytes are read, it holds more")
    return data


def version_folder(home: Path, version: int) -> Path:
    """Locate the folder of ``version`` in a channel's folder ``home``."""
    return home / f"{version:08d}"


def versions_in(home: Path) -> list[int]:
    """List the versions that a channel's folder holds, oldest first."""
    if not home.is_dir():
        return []
    return sorted(int(p.name) for p in home.iterdir() if re.fullmatch(r"\d{8,}", p.name))


def put_version(home: Path, manifest: Manifest, files: dict[str, bytes]) -> Path:
    """Place a version's ``files`` and its manifest in ``home`` at once and durably.

    A folder of that version with other content, left by an earlier run, is replaced.
    """
    target = version_folder(home, manifest.version)
    staged = home / f"{target.name}.tmp"
    shutil.rmtree(staged, ignore_errors=True)
    for name, data in files.items():
        write_durably(staged / name, data)
    write_durably(staged / MANIFEST_NAME, manifest.model_dump_json(indent=2).encode())
    old = home / f"{target.name}.old.tmp"
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.rename(target, old)
    os.rename(staged, target)
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(home)
    return target


def prune_versions(home: Path, *, keep: int, never: int) -> None:
    """Remove all but the newest ``keep`` versions; ``never`` is not removed."""
    for left in home.glob("*.tmp"):  # of a killed writer
        shutil.rmtree(left, ignore_errors=True)
    for version in versions_in(home)[:-keep]:
        if version != never:
            shutil.rmtree(version_folder(home, version), ignore_errors=True)

"""A channel's folder of policy versions, laid out alike on the trainer and on the robot.

``<channel>/<version:08d>/policy.{onnx,golden.npz,manifest.json}`` and ``<channel>/latest.json``.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from wm_core.contract.card import Manifest
from wm_core.contract.files import sync_folder, write_durably

ONNX_NAME = "policy.onnx"
GOLDEN_NAME = "policy.golden.npz"
MANIFEST_NAME = "policy.manifest.json"
LATEST_NAME = "latest.json"
CHANNEL_PATTERN = r"[a-z0-9_-]{1,64}"


def version_folder(home: Path, version: int) -> Path:
    """The folder of ``version`` in a channel's folder ``home``."""
    return home / f"{version:08d}"


def versions_in(home: Path) -> list[int]:
    """The versions that a channel's folder holds, oldest first."""
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
    if target.exists():
        old = home / f"{target.name}.old.tmp"
        shutil.rmtree(old, ignore_errors=True)
        os.rename(target, old)
        os.rename(staged, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staged, target)
    sync_folder(home)
    return target


def prune_versions(home: Path, *, keep: int, never: int) -> None:
    """Remove all but the newest ``keep`` versions; ``never`` is not removed."""
    for left in home.glob("*.tmp"):  # of a killed writer
        shutil.rmtree(left, ignore_errors=True)
    for version in versions_in(home)[:-keep]:
        if version != never:
            shutil.rmtree(version_folder(home, version), ignore_errors=True)

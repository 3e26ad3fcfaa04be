"""Stores published policies on the trainer: a folder per version, a file that names the newest.

A version appears whole or not at all, and ``latest.json`` is replaced only after its folder is
durable: a reader of the repository while the trainer is killed sees the version before.  Versions
that a channel may still send robots to are kept.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from wm_core.contract.card import Manifest
from wm_core.contract.errors import PolicyRefused, SettingsError, StoreError
from wm_core.contract.files import json_text, write_durably
from wm_core.contract.policy_folder import (
    CHANNEL_PATTERN,
    GOLDEN_NAME,
    LATEST_NAME,
    MANIFEST_NAME,
    ONNX_NAME,
    make_manifest,
    prune_versions,
    put_version,
    version_folder,
    versions_in,
)
from wm_core.contract.releases import Endorsement
from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.policy_keys import PolicyKeys

log = logging.getLogger(__name__)

GATES_NAME = "gates.json"
_GATES = ("last_return", "episodes")  #: of a run's status


class PolicyRepository:
    """Stores the published versions of one channel and keeps the newest.

    Args:
        root: folder of all channels; this one lives in ``root/<channel>``.
        channel: name of the line of policies, such as ``main``.
        keep: how many of the newest versions stay; the latest always does.
    """

    def __init__(self, root: Path, channel: str = "main", *, keep: int = 5) -> None:
        if not re.fullmatch(CHANNEL_PATTERN, channel):
            raise StoreError(f"expected a channel like {CHANNEL_PATTERN}, got {channel!r}")
        self.root, self.channel, self.keep = Path(root), channel, max(1, keep)
        self._home = self.root / channel

    def publish(
        self,
        onnx: bytes,
        golden: bytes,
        *,
        version: int,
        keys: PolicyKeys | None = None,
        gates: Mapping[str, float] | None = None,
        **about: Any,
    ) -> Manifest:
        """Make ``version`` the latest.

        Args:
            onnx: content of the policy's file.
            golden: content of its golden rollout.
            version: above that of the latest.
            keys: that sign the manifest; None leaves it unsigned, and so does a key that was
                taken away meanwhile, which is logged.
            gates: measures by which people decide on its promotion; kept beside it, unsigned.
            **about: further fields of its ``Manifest``.

        Raises:
            StoreError: where ``version`` is not above the latest one, which has other bytes.
        """
        manifest = make_manifest(onnx, golden, version=version, channel=self.channel, **about)
        last = self.latest()
        if last is not None and version <= last.version:
            if (last.version, last.policy) == (version, manifest.policy):
                return last
            raise StoreError(
                f"version {version} cannot follow {last.version} on channel {self.channel!r}; "
                "publish a higher one or begin another run folder"
            )
        content = manifest.model_dump_json(indent=2).encode()
        endorsement = None if keys is None else _endorsed(content, keys)
        files = {ONNX_NAME: onnx, GOLDEN_NAME: golden}
        if gates:
            files[GATES_NAME] = json_text(gates).encode()
        channels = Channels(self.root, self.channel)
        with channels.locked():
            put_version(self._home, content, files, endorsement)
            write_durably(self._home / LATEST_NAME, content)
            prune_versions(self._home, keep=self.keep, never={version, *channels.named()})
        return manifest

    def latest(self) -> Manifest | None:
        """Read the manifest of the newest version, or None before the first."""
        try:
            return Manifest.parse((self._home / LATEST_NAME).read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None

    def folder(self, version: int) -> Path:
        """Give the folder of ``version``, whether it exists or not."""
        return version_folder(self._home, version)

    def versions(self) -> list[int]:
        """List the stored versions, oldest first."""
        return versions_in(self._home)

    def blob(self, sha256: str) -> Path | None:
        """Find the file with that hash, if a stored version that is whole names it."""
        for version in reversed(self.versions()):
            folder = self.folder(version)
            try:
                manifest = Manifest.parse((folder / MANIFEST_NAME).read_bytes())
            except (OSError, PolicyRefused):  # pruned meanwhile, or damaged
                continue
            for blob in (manifest.policy, manifest.golden):
                if blob.sha256 == sha256 and (folder / blob.name).is_file():
                    return folder / blob.name
        return None


def _endorsed(content: bytes, keys: PolicyKeys) -> Endorsement | None:
    """Sign a manifest; None where the folder of keys does not allow it just now."""
    try:
        keys.refresh()
        return keys.endorse(content)
    except SettingsError as error:  # training goes on; `wm keys sign` signs it later
        log.error("a policy is published without a signature: %s", error)
        return None


def gates_of(status: Mapping[str, Any]) -> dict[str, float]:
    """Pick from a run's status, or from a file of gates, what decides on a promotion."""
    found = {name: status.get(name) for name in _GATES}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }

"""Keeps the policies that a robot received, in the order in which they came.

``latest.json`` is the manifest of the one to run, ``order.json`` lists the versions by arrival: a
new run begins at version 0 again, and a rollback by the trainer names an earlier one, so numbers
say nothing about what is newer.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Collection
from pathlib import Path

from wm_core.contract.card import Blob, Manifest, check_bytes
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.files import json_text, make_folder, write_durably
from wm_core.contract.policy_folder import (
    LATEST_NAME,
    MANIFEST_NAME,
    MAX_MANIFEST_BYTES,
    PolicyFolder,
    put_version,
    remove_unfinished_versions,
    remove_version,
    version_folder,
    versions_in,
)
from wm_core.contract.releases import Endorsement
from wm_core.contract.trust import Trust

log = logging.getLogger(__name__)

_ORDER_NAME, _PARTIAL = "order.json", "partial"


class PolicyCache:
    """Holds the received versions of one channel; for one writer, the client's thread.

    Args:
        home: folder of the channel.
        keep: how many of the newest versions stay.
        trust: verifies what an earlier run stored; None trusts it by its hashes alone.
    """

    def __init__(self, home: Path, keep: int, trust: Trust | None = None) -> None:
        self.home, self._keep, self._trust = home, keep, trust
        self._order = self._read_order()
        self.manifest = self._found()  #: of the version to run; None before the first

    def versions(self) -> list[int]:
        """List the version to run and those that came before it, the newest first."""
        manifest, order = self.manifest, self._order
        if manifest is None:
            return []
        before = order[: order.index(manifest.version)] if manifest.version in order else order
        return [manifest.version, *(v for v in reversed(before) if v != manifest.version)]

    def holds(self, version: int) -> bool:
        """Tell whether ``version`` is here, whole and trusted."""
        return self._whole(version_folder(self.home, version)) is not None

    def store(
        self,
        content: bytes,
        files: dict[str, bytes],
        endorsement: Endorsement | None,
        never: Collection[int],
    ) -> None:
        """Place a version that was fetched and verified, and make it the one to run.

        Args:
            content: bytes of its manifest.
            files: content by file name.
            endorsement: signatures of the manifest; None for an unsigned one.
            never: further versions that must stay here.
        """
        put_version(self.home, content, files, endorsement)
        manifest = Manifest.parse(content)
        before = [v for v in self._order if v != manifest.version]
        if endorsement is not None:  # signed: a lower number is a rollback, not a new run
            before = [v for v in before if v < manifest.version]
        self._order = [*before, manifest.version]
        self._point(manifest, content, never)

    def go_back(
        self, content: bytes, endorsement: Endorsement | None, never: Collection[int]
    ) -> bool:
        """Run a version that is here again; those that came after it are withdrawn.

        Args:
            content: bytes of its manifest.
            endorsement: its signatures, which replace those that are here.
            never: further versions that must stay here.

        Returns:
            Whether it is here, whole and with these bytes.
        """
        manifest = Manifest.parse(content)
        folder = version_folder(self.home, manifest.version)
        if manifest.version not in self._order or not _holds(folder / MANIFEST_NAME, content):
            return False
        if endorsement is not None:
            text = endorsement.model_dump_json(indent=1).encode()
            if not _holds(PolicyFolder(folder).endorsement, text):
                write_durably(PolicyFolder(folder).endorsement, text)
        if self._whole(folder) is None:
            return False
        self._order = self._order[: self._order.index(manifest.version) + 1]
        self._point(manifest, content, never)
        return True

    def begin_part(self, blob: Blob, wanted: Collection[Blob]) -> Path:
        """Locate the file into which ``blob`` is fetched; others than ``wanted`` are removed."""
        folder = self.home / _PARTIAL
        make_folder(folder)
        names = {f"{other.sha256}.part" for other in wanted}
        for path in folder.iterdir():
            if path.name not in names:
                path.unlink(missing_ok=True)
        return folder / f"{blob.sha256}.part"

    def _point(self, manifest: Manifest, content: bytes, never: Collection[int]) -> None:
        write_durably(self.home / _ORDER_NAME, json_text(self._order).encode())
        write_durably(self.home / LATEST_NAME, content)
        self.manifest = manifest
        self._prune({manifest.version, *never})
        shutil.rmtree(self.home / _PARTIAL, ignore_errors=True)

    def _prune(self, never: Collection[int]) -> None:
        """Remove all but the versions that came last; those in ``never`` stay."""
        remove_unfinished_versions(self.home)
        kept = {*self._order[-self._keep :], *never}
        for version in versions_in(self.home):
            if version not in kept:
                remove_version(self.home, version)
        self._order = [v for v in self._order if v in kept]

    def _read_order(self) -> list[int]:
        """Read the order of arrival; by number where it was never written."""
        there = versions_in(self.home)
        try:
            found = json.loads((self.home / _ORDER_NAME).read_bytes()[:MAX_MANIFEST_BYTES])
        except (OSError, ValueError, RecursionError):
            return there
        listed = found if isinstance(found, list) else []
        order = [v for v in listed if type(v) is int and v in there]
        return list(dict.fromkeys(order)) or there

    def _found(self) -> Manifest | None:
        """Find the policy of an earlier run: the latest, or the newest that is whole."""
        latest = self._pointed()
        for version in dict.fromkeys([*latest, *reversed(self._order)]):
            manifest = self._whole(version_folder(self.home, version))
            if manifest is not None:
                return manifest
        return None

    def _pointed(self) -> list[int]:
        try:
            content = (self.home / LATEST_NAME).read_bytes()[:MAX_MANIFEST_BYTES]
            return [Manifest.parse(content).version]
        except (OSError, PolicyRefused):
            return []

    def _whole(self, folder: Path) -> Manifest | None:
        """Give the manifest of a version whose files fit it and whose keys are trusted."""
        try:
            policy = PolicyFolder(folder)
            manifest = policy.read_manifest() if self._trust is None else self._trust.check(policy)
            for blob in (manifest.policy, manifest.golden):
                check_bytes(policy.read(blob, blob.bytes), blob)
        except PolicyRefused as error:
            if folder.exists():
                log.warning("cached policy %s is ignored: %s", folder, error)
            return None
        return manifest


def _holds(path: Path, content: bytes) -> bool:
    try:
        return path.read_bytes() == content
    except OSError:
        return False

"""Delivers policies to the robot: waits for a version, fetches it, verifies it, stores it whole.

Files are fetched by their hash and resumed where a connection was cut.  The last versions stay on
the robot, so that it starts without a trainer, and a rollback is the choice of another folder.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path

from wm_core.contract.card import Blob, Manifest, check_bytes
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.files import make_folder, write_durably
from wm_core.contract.frozen import ranged
from wm_core.contract.policy_folder import (
    CHANNEL_PATTERN,
    LATEST_NAME,
    MANIFEST_NAME,
    prune_versions,
    put_version,
    version_folder,
    versions_in,
)
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import ConnectionSettings
from wm_core.link.robot.worker import Worker

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 18
_COUNTED = ("received", "refused", "retries", "resumed", "bytes_received")


class PolicyClientSettings(ConnectionSettings):
    """Sets deadlines and bounds of policy delivery."""

    keep: int = ranged(5, 1, 1000, "Versions of the policy to keep on the robot")
    max_bytes: int = ranged(1 << 30, 1, 2**62, "Bytes above which a policy's file is refused")
    wait_s: float = ranged(30.0, 0.001, 60, "Seconds that one question for a policy may stay open")


class PolicyClient(Worker):
    """Keeps the newest policy of a channel in a local folder, in a thread.

    Args:
        url: of the trainer's service.
        cache: folder of all channels; versions appear as ``cache/<channel>/<version:08d>/``.
        channel: name of the line of policies.
        token: the robot's token; None where the service is on the same machine without one.
        settings: deadlines and bounds.
        access: certificates and proxy; None for those of the system.
    """

    def __init__(
        self,
        url: str,
        *,
        cache: Path,
        channel: str = "main",
        token: str | None = None,
        settings: PolicyClientSettings | None = None,
        access: AccessSettings | None = None,
    ) -> None:
        if not re.fullmatch(CHANNEL_PATTERN, channel):
            raise SettingsError(f"expected a channel like {CHANNEL_PATTERN}, got {channel!r}")
        self.settings, self._channel = settings or PolicyClientSettings(), channel
        super().__init__("policy-client", _COUNTED, url, token, self.settings, access=access)
        self._home = Path(cache) / channel
        self._refused = ""  # hash of the last policy that was refused: not asked for again
        self._manifest = self._cached()
        self._start()

    def latest(self) -> Path | None:
        """Give the folder of the newest verified version, or None before the first."""
        with self._lock:
            manifest = self._manifest
        return version_folder(self._home, manifest.version) if manifest else None

    def versions(self) -> list[Path]:
        """List the folders of the verified versions that are kept, the newest first."""
        with self._lock:
            manifest = self._manifest
        if manifest is None:
            return []
        older = [v for v in versions_in(self._home) if v < manifest.version]
        return [version_folder(self._home, v) for v in (manifest.version, *reversed(older))]

    def counters(self) -> dict[str, int | str]:
        """Give the newest version (-1: none), what was received, and the last error."""
        with self._lock:
            version = self._manifest.version if self._manifest else -1
        return {**self._counters.read(), "version": version}

    def _work(self) -> None:
        try:
            self._ask()
        except PolicyRefused as error:
            self._counters.count("refused")
            self._retry_later(f"refused: {error}")
        else:
            self._backoff.reset()
            self._counters.set_error("")

    def _ask(self) -> None:
        """Ask once, and receive what is new."""
        have = self._refused or (self._manifest.policy.sha256 if self._manifest else "")
        after = self._manifest.version if self._manifest else -1
        wait_s = self.settings.wait_s
        reply = self._client.request(
            "GET",
            f"/v1/policies/{self._channel}?after={after}&have={have}&wait={wait_s:g}",
            read_s=wait_s + self.settings.read_s,
        )
        if reply.status == 204:
            return
        if reply.status != 200:
            raise ConnectionError(f"{reply.status}: {reply.body[:200].decode(errors='replace')}")
        manifest = Manifest.parse(reply.body)
        try:
            self._receive(manifest)
        except PolicyRefused:
            self._refused = manifest.policy.sha256
            raise
        self._refused = ""

    def _receive(self, manifest: Manifest) -> None:
        """Fetch, verify and store a version, then name it the latest."""
        if manifest.channel != self._channel:
            raise PolicyRefused(f"expected channel {self._channel!r}, got {manifest.channel!r}")
        for blob in (manifest.policy, manifest.golden):
            if blob.bytes > self.settings.max_bytes:
                raise PolicyRefused(
                    f"{blob.name}: at most {self.settings.max_bytes} bytes, got {blob.bytes}"
                )
            if Path(blob.name).name != blob.name or blob.name == MANIFEST_NAME:
                raise PolicyRefused(f"{blob.name!r} is not a plain file name")
        files = {blob.name: self._fetch(blob) for blob in (manifest.policy, manifest.golden)}
        content = manifest.model_dump_json().encode()
        put_version(self._home, content, files)
        write_durably(self._home / LATEST_NAME, content)
        with self._lock:
            self._manifest = manifest
        self._counters.count("received")
        prune_versions(self._home, keep=self.settings.keep, never={manifest.version})
        for part in (self._home / "partial").glob("*.part"):
            part.unlink(missing_ok=True)
        log.info("policy version %d received", manifest.version)

    def _fetch(self, blob: Blob) -> bytes:
        """Fetch and verify the content of ``blob``; what an earlier attempt received is kept."""
        part = self._home / "partial" / f"{blob.sha256}.part"
        make_folder(part.parent)
        have = part.stat().st_size if part.exists() else 0
        if have < blob.bytes:
            self._download(blob, part, have)
        data = part.read_bytes()
        try:
            check_bytes(data, blob)
        except PolicyRefused as error:  # damaged on the way or on our disk: fetch it anew
            part.unlink()
            raise ConnectionError(str(error)) from error
        return data

    def _download(self, blob: Blob, part: Path, have: int) -> None:
        headers = {"Range": f"bytes={have}-"} if have else {}
        with self._client.opened("GET", f"/v1/blobs/{blob.sha256}", headers=headers) as response:
            if response.status not in (200, 206):
                raise ConnectionError(f"{response.status} for {blob.name}, {blob.sha256}")
            if response.status == 200:  # from the beginning, asked or not
                have = 0
            elif not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                raise ConnectionError(f"expected the bytes from {have} on, got another range")
            self._counters.count("resumed", int(have > 0))
            with part.open("ab" if have else "wb") as file:
                while piece := response.read(_PIECE_BYTES):
                    have += len(piece)
                    if have > blob.bytes:
                        raise ConnectionError(f"{blob.name}: more than its {blob.bytes} bytes")
                    file.write(piece)
                    self._counters.count("bytes_received", len(piece))
        if have < blob.bytes:
            raise ConnectionError(f"{blob.name}: cut after {have} of {blob.bytes} bytes")

    def _cached(self) -> Manifest | None:
        """Find the policy of an earlier run: the latest, or the newest that is whole."""
        newest_first = reversed(versions_in(self._home))
        folders = [version_folder(self._home, version) for version in newest_first]
        for path in (self._home / LATEST_NAME, *(f / MANIFEST_NAME for f in folders)):
            try:
                manifest = Manifest.parse(path.read_bytes())
                folder = version_folder(self._home, manifest.version)
                for blob in (manifest.policy, manifest.golden):
                    check_bytes((folder / blob.name).read_bytes(), blob)
            except (OSError, PolicyRefused) as error:
                if path.exists():
                    log.warning("cached policy %s is ignored: %s", path, error)
                continue
            return manifest
        return None

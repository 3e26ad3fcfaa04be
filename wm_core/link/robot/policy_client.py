"""Delivers policies to the robot: waits for a version, fetches it, verifies it, stores it whole.

Files are fetched by their hash and resumed where a connection was cut.  The last versions stay on
the robot, so that it starts without a trainer, and a rollback is the choice of another folder.
Where keys are trusted, nothing is fetched before its signatures are verified.
"""

from __future__ import annotations

import json
import logging
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from wm_core.contract.card import MAX_VERSION, Blob, Manifest, check_bytes
from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.frozen import ranged
from wm_core.contract.policy_folder import (
    CHANNEL_PATTERN,
    GOLDEN_NAME,
    ONNX_NAME,
    PolicyFolder,
    version_folder,
)
from wm_core.contract.releases import Endorsement
from wm_core.contract.trust import Trust
from wm_core.link.robot.access import AccessSettings
from wm_core.link.robot.client import ConnectionSettings
from wm_core.link.robot.policy_cache import PolicyCache
from wm_core.link.robot.worker import Worker

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 18
_COUNTED = ("received", "refused", "retries", "resumed", "bytes_received", "went_back")
_LEAST_WAIT_S = 0.05  # between two questions that were answered at once


class PolicyClientSettings(ConnectionSettings):
    """Sets deadlines and bounds of policy delivery."""

    keep: int = ranged(5, 1, 1000, "Versions of the policy to keep on the robot")
    max_bytes: int = ranged(1 << 30, 1, 2**62, "Bytes above which a policy's file is refused")
    wait_s: float = ranged(30.0, 0.001, 60, "Seconds that one question for a policy may stay open")
    fetch_s: float = ranged(
        600.0, 0.01, 604_800, "Seconds that one attempt at a policy's file may take; it is resumed"
    )
    pin_version: int = ranged(
        -1, -1, MAX_VERSION, "Version that this robot runs whatever its trainer says; -1: none"
    )


class Running(NamedTuple):
    """Names the policy that acts just now."""

    version: int
    sha256: str  #: of its file


class _Offer(NamedTuple):
    """Is a policy that the trainer wants this robot to run."""

    manifest: Manifest
    content: bytes  # of the manifest, as they are kept
    endorsement: Endorsement | None


class PolicyClient(Worker):
    """Keeps the policy that a channel's robots are to run in a local folder, in a thread.

    Args:
        url: of the trainer's service.
        cache: folder of all channels; versions appear as ``cache/<channel>/<version:08d>/``.
        channel: name of the line of policies.
        token: the robot's token; None where the service is on the same machine without one.
        settings: deadlines and bounds.
        access: certificates and proxy; None for those of the system.
        robot: name of this robot, by which roll-outs and pins choose; empty: that of none.
        trust: verifies signatures; None takes unsigned policies.
        running: tells which policy acts, which is said to the trainer and never removed.
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
        robot: str = "",
        trust: Trust | None = None,
        running: Callable[[], Running | None] = lambda: None,
    ) -> None:
        if not re.fullmatch(CHANNEL_PATTERN, channel):
            raise SettingsError(f"expected a channel like {CHANNEL_PATTERN}, got {channel!r}")
        self.settings, self._channel = settings or PolicyClientSettings(), channel
        super().__init__("policy-client", _COUNTED, url, token, self.settings, access=access)
        self._robot, self._trust, self._running = robot, trust, running
        self._cache = PolicyCache(Path(cache) / channel, self.settings.keep, trust)
        self._refused = ""  # hash of the last policy that was refused: not asked for again
        self._serial = -1  # of the last statement whose policy is here
        self._checked, self._untrusted = (0, -1), ""  # keyring and version that acted then
        self._versions = self._to_run()
        self._start()

    def latest(self) -> Path | None:
        """Give the folder of the verified version to run, or None before the first."""
        return next(iter(self.versions()), None)

    def versions(self) -> list[Path]:
        """List the folders of the verified versions that may run, the first choice first."""
        with self._lock:
            versions = self._versions
        return [version_folder(self._cache.home, version) for version in versions]

    def problem(self) -> str:
        """Say why the trainer's newest policy may not be here; empty where all is well."""
        pin = self.settings.pin_version
        if pin >= 0 and not self.versions():
            return f"pin_version {pin} is not on this robot, and its trainer does not offer it"
        stale = self._trust.stale(self._channel) if self._trust else ""
        return stale or str(self._counters.read()["last_error"])

    def counters(self) -> dict[str, int | str]:
        """Give the version to run (-1: none), what was received, and the last error."""
        with self._lock:
            version = self._versions[0] if self._versions else -1
        said: dict[str, int | str] = {**self._counters.read(), "version": version}
        if self._trust is not None:
            said["keyring"] = self._trust.keyring.number if self._trust.keyring else 0
            said["serial"] = self._trust.serial.get(self._channel, 0)
            said["stale"] = self._trust.stale(self._channel)
            said["untrusted"] = self._untrusted
        return said

    def _work(self) -> None:
        began_s = time.monotonic()
        try:
            try:
                self._ask()
            finally:
                if self._trust is not None:
                    self._check_running(self._trust)
        except PolicyRefused as error:
            self._counters.count("refused")
            self._retry_later(f"refused: {error}")
        else:
            self._backoff.reset()
            self._counters.set_error("")
            self._stop.wait(max(0.0, _LEAST_WAIT_S - (time.monotonic() - began_s)))

    def _ask(self) -> None:
        """Ask once, and receive what is new."""
        manifest = self._cache.manifest
        if self._trust is None:
            have = self._refused or (manifest.policy.sha256 if manifest else "")
            query = f"after={manifest.version if manifest else -1}&have={have}"
        else:
            query = f"serial={self._serial}"
        wait_s = self.settings.wait_s
        reply = self._client.request(
            "GET",
            f"/v1/policies/{self._channel}?{query}&robot={self._robot}&wait={wait_s:g}",
            headers=self._said(),
            read_s=wait_s + self.settings.read_s,
        )
        if reply.status == 204:
            return
        if reply.status == 409:  # the trainer has nothing that this robot could trust
            raise PolicyRefused(_reason(reply.body))
        if reply.status != 200:
            raise ConnectionError(f"{reply.status}: {_reason(reply.body)}")
        if self._trust is None:
            self._take_unsigned(reply.body)
        else:
            self._take_signed(self._trust, reply.body)

    def _take_unsigned(self, text: bytes) -> None:
        manifest = Manifest.parse(text)
        try:
            if manifest.channel != self._channel:
                raise PolicyRefused(
                    f"expected channel {self._channel!r}, got {manifest.channel!r}"
                )
            taken = self._receive(_Offer(manifest, manifest.model_dump_json().encode(), None))
        except PolicyRefused:
            self._refused = manifest.policy.sha256
            raise
        self._refused = "" if taken else manifest.policy.sha256

    def _take_signed(self, trust: Trust, text: bytes) -> None:
        told = trust.take(text, channel=self._channel, robot=self._robot)
        if told is not None:
            self._receive(_Offer(told.manifest, told.content, told.endorsement))
        self._serial = trust.serial[self._channel]

    def _check_running(self, trust: Trust) -> None:
        """Notice where the policy that acts is by a key that was taken away."""
        running = self._running()
        seen = (trust.keyring.number if trust.keyring else 0, running.version if running else -1)
        if running is None or seen == self._checked:
            return
        self._checked, self._untrusted = seen, ""
        folder = PolicyFolder(version_folder(self._cache.home, running.version))
        if not folder.manifest.exists():  # it came by hand, and is checked where it is opened
            return
        try:
            trust.check(folder)
        except PolicyRefused as error:
            self._untrusted = (
                f"version {running.version} acts though its key is not trusted any more "
                f"({error}): publish a version of a trusted key, or stop the robot"
            )
            log.warning(self._untrusted)

    def _receive(self, offer: _Offer) -> bool:
        """Fetch, verify and store a version, or go back to one that is here; then run that.

        False where this robot is pinned to another one.
        """
        manifest, pin = offer.manifest, self.settings.pin_version
        if pin >= 0 and manifest.version != pin:
            return False
        self._check(manifest)
        never = self._never()
        if self._cache.go_back(offer.content, offer.endorsement, never):
            self._counters.count("went_back")
        else:
            wanted = (manifest.policy, manifest.golden)
            files = {blob.name: self._fetch(blob, wanted) for blob in wanted}
            self._cache.store(offer.content, files, offer.endorsement, never)
            self._counters.count("received")
        with self._lock:
            self._versions = self._to_run()
        log.info("policy version %d is to run", manifest.version)
        return True

    def _check(self, manifest: Manifest) -> None:
        """Refuse sizes and names that this robot does not take."""
        for blob, name in ((manifest.policy, ONNX_NAME), (manifest.golden, GOLDEN_NAME)):
            if blob.bytes > self.settings.max_bytes:
                raise PolicyRefused(
                    f"{name}: at most {self.settings.max_bytes} bytes, got {blob.bytes}"
                )
            if blob.name != name:
                raise PolicyRefused(f"expected the file name {name}, got {blob.name[:80]!r}")

    def _to_run(self) -> list[int]:
        """List the versions that may run, the first choice first."""
        pin = self.settings.pin_version
        if pin < 0:
            return self._cache.versions()
        return [pin] if self._cache.holds(pin) else []

    def _never(self) -> set[int]:
        """Name the versions that are not removed: the running one and the pinned one."""
        running = self._running()
        kept = {self.settings.pin_version} | ({running.version} if running else set())
        return kept - {-1}

    def _said(self) -> dict[str, str]:
        """Say in a header which policy acts here."""
        running = self._running()
        return {"WM-Policy": f"{running.version}/{running.sha256}"} if running else {}

    def _fetch(self, blob: Blob, wanted: tuple[Blob, ...]) -> bytes:
        """Fetch and verify the content of ``blob``; what an earlier attempt received is kept."""
        part = self._cache.begin_part(blob, wanted)
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
        until_s = time.monotonic() + self.settings.fetch_s
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
                    if time.monotonic() > until_s:
                        raise TimeoutError(
                            f"{blob.name}: {have} of {blob.bytes} bytes came within "
                            f"{self.settings.fetch_s:g} s; the rest is asked for again"
                        )
                    self._counters.count("bytes_received", len(piece))
        if have < blob.bytes:
            raise ConnectionError(f"{blob.name}: cut after {have} of {blob.bytes} bytes")


def _reason(body: bytes) -> str:
    """Give the reason in an answer of the trainer, or how another answer begins."""
    try:
        said = json.loads(body)
        if isinstance(said, dict) and isinstance(said.get("reason"), str):
            return str(said["reason"])[:500]
    except (ValueError, RecursionError):
        pass
    return body[:200].decode(errors="replace")

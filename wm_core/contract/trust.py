"""Holds a robot's trust: whose policies it runs, and the newest of what it was told, on its disk.

What it was told once is never undone by something older: keyrings and statements are numbered, and
the numbers are kept in a file.  A number counts only as long as the keyring still names the key
that signed it, so a stolen key that wrote an enormous number is undone by taking the key away.

The time is the latest of the system's clock and of what trusted keys have signed: a robot whose
clock begins in 1970 takes an expired statement for fresh, but never one that is older than the
last, and so it never runs something older.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from pydantic import Field

from wm_core.contract.card import Manifest
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.files import write_durably
from wm_core.contract.frozen import Frozen
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.releases import (
    Delivery,
    Endorsement,
    Keyring,
    Release,
    Statement,
    verify_keyring,
    verify_statement,
)
from wm_core.contract.signing import Document, Signed, require, short

log = logging.getLogger(__name__)

_NO_KEYS = (
    "expected a signed policy, and no key is trusted here: copy owner.pub of `wm keys make` to "
    "the robot and name it in trusted_keys, or set require_signature to never on a network that "
    "you trust"
)


class LastHeard(Frozen):
    """Remembers the last statement of a channel."""

    serial: int
    key: str
    issued: int
    expires: int
    digest: str


class TrustMemory(Document):
    """Is what a robot remembers between two starts."""

    keyring: Signed | None = None
    heard: dict[str, LastHeard] = Field(default_factory=dict)


@dataclass(frozen=True)
class Instruction:
    """Says which policy a robot is to run, and carries the proof of it."""

    statement: Statement
    release: Release
    manifest: Manifest
    content: bytes  #: the manifest's bytes, as they were signed
    endorsement: Endorsement


class Trust:
    """Verifies keyrings, statements and manifests, and remembers the newest; for several threads.

    What only tells (``keyring``, ``serial``, ``now_s``, ``stale``) waits for no disk.

    Args:
        owners: name by public key of the robot's owner; without any, everything is refused.
        memory: file that keeps what was seen; None keeps it in memory alone.
        clock: gives the seconds since 1970 by the system's clock.
    """

    def __init__(
        self,
        owners: Mapping[str, str],
        memory: Path | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.owners, self._path, self._clock = dict(owners), memory, clock
        self._lock = threading.RLock()
        self._keyring: Keyring | None = None
        self._kept = (TrustMemory(), time.monotonic())  # what was heard, and when it was
        self._remember()

    @property
    def _memory(self) -> TrustMemory:
        return self._kept[0]

    @property
    def keyring(self) -> Keyring | None:
        """Return the newest keyring that the owner signed; None before the first."""
        return self._keyring

    @property
    def serial(self) -> dict[str, int]:
        """Give the serial number of the last statement by channel."""
        return {name: heard.serial for name, heard in self._memory.heard.items()}

    def now_s(self) -> float:
        """Give the seconds since 1970: the latest of the clock and of what was signed."""
        memory, began_s = self._kept
        keyring = self._keyring
        signed = [heard.issued for heard in memory.heard.values()]
        signed += [keyring.issued] if keyring else []
        steady = max(signed, default=0) + time.monotonic() - began_s
        return max(self._clock(), steady)

    def stale(self, channel: str) -> str:
        """Say since when nothing fresh was heard on ``channel``; empty while it is fresh."""
        heard = self._memory.heard.get(channel)
        if heard is None or self.now_s() <= heard.expires:
            return ""
        return (
            f"the last statement of channel {channel!r} expired at {_date(heard.expires)}: "
            "no new policy is taken until the trainer sends a fresh one"
        )

    def take(self, text: bytes, *, channel: str, robot: str) -> Instruction | None:
        """Take what the trainer answered; None where it names no policy for ``robot``.

        Args:
            text: JSON of a ``Delivery``.
            channel: that the robot follows.
            robot: its name.

        Raises:
            PolicyRefused: where anything is not signed by whom it should be, is older than what
                was heard before, has expired, or does not fit together.
            OSError: where the disk does not keep what was heard; then nothing is taken.
        """
        if not self.owners:
            raise PolicyRefused(_NO_KEYS)
        delivery = Delivery.parse(text)
        with self._lock:
            keyring = self._newer(delivery.keyring)
            statement, key = verify_statement(delivery.statement, keyring, channel, self.now_s())
            if statement.keyring > keyring.number:
                raise PolicyRefused(
                    f"keyring: the statement asks for number {statement.keyring}, got "
                    f"{keyring.number}: one of them was held back"
                )
            self._hear(delivery, keyring, statement, key)
            release = statement.release_for(robot)
            if release is None:
                return None
            return self._order(delivery, statement, release)

    def check(self, folder: PolicyFolder) -> Manifest:
        """Give the manifest of a policy on the disk, whose signature is verified.

        Raises:
            PolicyRefused: where it is missing or not by a policy key of the newest keyring.
        """
        if not self.owners:
            raise PolicyRefused(_NO_KEYS)
        content, endorsement = folder.read_signed()
        with self._lock:
            if endorsement.keyring is not None:
                keyring, _ = verify_keyring(endorsement.keyring, self.owners)
                if self._keyring is None or keyring.number > self._keyring.number:
                    self._adopt(endorsement.keyring, keyring)
            if self._keyring is None:
                raise PolicyRefused(
                    "manifest: expected a keyring of the owner, got none; sign the policy with "
                    "`wm keys sign`"
                )
            return self._manifest(content, endorsement)

    def _newer(self, signed: Signed) -> Keyring:
        """Take the keyring in ``signed``, which must not be older than the one that is known."""
        keyring, _ = verify_keyring(signed, self.owners)
        known = self._keyring
        if known is not None and keyring.number < known.number:
            raise PolicyRefused(
                f"keyring: expected number {known.number} or later, got {keyring.number}; give "
                "the trainer the owner's newest keyring.json"
            )
        if known is not None and keyring.number == known.number and keyring != known:
            raise PolicyRefused(
                f"keyring: two that differ have the number {known.number}; sign one with a higher "
                "number"
            )
        if self.now_s() > keyring.expires:
            raise PolicyRefused(
                f"keyring: it expired at {_date(keyring.expires)}, and it is now "
                f"{_date(self.now_s())}; the owner signs a new one with `wm keys sign`"
            )
        if known is None or keyring.number > known.number:
            self._adopt(signed, keyring)
        return keyring

    def _adopt(self, signed: Signed, keyring: Keyring) -> None:
        """Remember a newer keyring, and forget what was signed by keys that it does not name."""
        trusted = keyring.keys_for("channel")
        heard = {n: h for n, h in self._memory.heard.items() if h.key in trusted}
        self._keep(TrustMemory(keyring=signed, heard=heard))
        self._keyring = keyring
        log.info("keyring %d is trusted", keyring.number)

    def _hear(self, delivery: Delivery, keyring: Keyring, statement: Statement, key: str) -> None:
        digest = hashlib.sha256(delivery.statement.content).hexdigest()
        last = self._memory.heard.get(statement.channel)
        if last is not None and statement.serial < last.serial:
            raise PolicyRefused(
                f"statement: expected serial {last.serial} or later, got {statement.serial}: an "
                "old one was sent again, or the trainer's folder was restored from a backup"
            )
        if last is not None and statement.serial == last.serial and digest != last.digest:
            raise PolicyRefused(f"statement: two that differ have the serial {last.serial}")
        now_s = self.now_s()
        if now_s > statement.expires:
            raise PolicyRefused(
                f"statement: it expired at {_date(statement.expires)}, and it is now "
                f"{_date(now_s)}; see whether the trainer signs, and both clocks"
            )
        if last is None or statement.serial > last.serial:
            heard = LastHeard(
                serial=statement.serial,
                key=key,
                issued=statement.issued,
                expires=statement.expires,
                digest=digest,
            )
            heards = {**self._memory.heard, statement.channel: heard}
            self._keep(TrustMemory(keyring=self._memory.keyring, heard=heards))

    def _order(self, delivery: Delivery, statement: Statement, release: Release) -> Instruction:
        signed = delivery.manifest
        if signed is None:
            raise PolicyRefused("manifest: expected the one that the statement names, got none")
        got = hashlib.sha256(signed.content).hexdigest()
        if got != release.manifest:
            raise PolicyRefused(
                f"manifest: the statement names {short(release.manifest)}, got {short(got)}"
            )
        endorsement = Endorsement(signatures=signed.signatures, keyring=delivery.keyring)
        manifest = self._manifest(signed.content, endorsement)
        if manifest.version != release.version:
            raise PolicyRefused(
                f"manifest: the statement names version {release.version}, got {manifest.version}"
            )
        return Instruction(statement, release, manifest, signed.content, endorsement)

    def _manifest(self, content: bytes, endorsement: Endorsement) -> Manifest:
        assert self._keyring is not None
        keys = self._keyring.keys_for("policy", self.now_s())
        require("manifest", content, endorsement.signatures, keys, "a policy key")
        return Manifest.parse(content)

    def _keep(self, memory: TrustMemory) -> None:
        """Remember on the disk first: what a power cut undoes could be replayed."""
        if self._path is not None:
            write_durably(self._path, memory.model_dump_json().encode())
        self._kept = (memory, time.monotonic())

    def _remember(self) -> None:
        """Read what was seen before the last stop, as far as the owner's keys stand for it."""
        if self._path is None or not self._path.exists() or not self.owners:
            return
        try:
            memory = TrustMemory.parse(self._path.read_bytes())
            if memory.keyring is None:
                return
            self._keyring, _ = verify_keyring(memory.keyring, self.owners)
        except (OSError, PolicyRefused) as error:
            log.warning("what %s remembers is passed over: %s", self._path, error)
            return
        trusted = self._keyring.keys_for("channel")
        heard = {n: h for n, h in memory.heard.items() if h.key in trusted}
        self._kept = (TrustMemory(keyring=memory.keyring, heard=heard), time.monotonic())


def _date(time_s: float) -> str:
    """Write seconds since 1970 as UTC, ISO 8601."""
    return datetime.fromtimestamp(min(max(time_s, 0), 2**36), timezone.utc).isoformat(
        timespec="seconds"
    )

"""Says who may sign policies, and which policy each robot of a channel is to run.

The owner's offline key signs a keyring; a policy key that it names signs manifests; a channel key
that it names signs statements, again and again, so that a robot notices when it is told nothing
new.  A statement names manifests by their hash, and a manifest its files by theirs.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from wm_core.contract.card import MAX_VERSION
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.frozen import Frozen
from wm_core.contract.signing import KEY_PATTERN, Document, Signature, Signed, require

MAX_SERIAL = 2**53 - 1  #: exact in every JSON reader
MAX_TIME_S = 4_102_444_800  #: the year 2100, in seconds since 1970
MAX_LIFETIME_S = 366 * 86_400  #: for which a statement may count as fresh
MAX_NAMED = 2000  #: robots that a statement names
CHANNEL = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
ROBOT = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")]
SHA256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SECONDS = Annotated[int, Field(ge=0, le=MAX_TIME_S)]

Role = Literal["policy", "channel"]


class Key(Frozen):
    """Names a public key, what it may sign, and until when."""

    model_config = Document.model_config
    key: str = Field(pattern=KEY_PATTERN)
    roles: tuple[Role, ...] = Field(min_length=1, max_length=2)
    name: str = Field("", max_length=200)
    expires: SECONDS = MAX_TIME_S


class Keyring(Document):
    """States which keys may sign policies and statements; the owner signs it."""

    keyring_version: Literal[1] = 1
    number: int = Field(ge=1, le=2**31 - 1)  #: grows by each change; robots take no older one
    keys: tuple[Key, ...] = Field(max_length=32)
    expires: SECONDS = MAX_TIME_S
    issued: SECONDS = 0

    @model_validator(mode="after")
    def _keys_differ(self) -> Keyring:
        if len({key.key for key in self.keys}) != len(self.keys):
            raise ValueError("expected keys that differ, one is named twice")
        return self

    def keys_for(self, role: Role, now_s: float = 0) -> list[str]:
        """List the public keys that may sign as ``role`` at ``now_s``, seconds since 1970."""
        return [k.key for k in self.keys if role in k.roles and now_s < k.expires]


class Release(Frozen):
    """Names a published policy by the hash of its manifest."""

    model_config = Document.model_config
    manifest: SHA256
    version: int = Field(ge=0, le=MAX_VERSION)


class Rollout(Frozen):
    """Names a release that a part of the robots is to run before the others."""

    model_config = Document.model_config
    release: Release
    share: float = Field(0.0, ge=0, le=1)  #: of the robots, chosen by a hash of their names
    robots: tuple[ROBOT, ...] = Field((), max_length=MAX_NAMED)  #: and these

    def includes(self, robot: str) -> bool:
        """Tell whether ``robot`` is among them; a larger share includes all of a smaller one."""
        return robot in self.robots or share_of(robot, self.release.manifest) < self.share


class Plan(Document):
    """Says which release each robot of a channel is to run."""

    what: ClassVar[str] = "plan"
    current: Release | None = None
    rollout: Rollout | None = None
    pins: dict[ROBOT, Release] = Field(default_factory=dict, max_length=MAX_NAMED)

    def release_for(self, robot: str) -> Release | None:
        """Choose for ``robot``: what it is pinned to, else the roll-out, else the current one."""
        if robot in self.pins:
            return self.pins[robot]
        if self.rollout is not None and self.rollout.includes(robot):
            return self.rollout.release
        return self.current


class Statement(Plan):
    """States a channel's plan, freshly; a channel key signs it."""

    what: ClassVar[str] = "statement"
    statement_version: Literal[1] = 1
    channel: CHANNEL
    serial: int = Field(ge=1, le=MAX_SERIAL)  #: grows by each statement; robots take no older one
    keyring: int = Field(1, ge=1, le=2**31 - 1)  #: number of the keyring that comes along
    issued: SECONDS
    expires: SECONDS

    @model_validator(mode="after")
    def _lifetime_is_bounded(self) -> Statement:
        if not 0 < self.expires - self.issued <= MAX_LIFETIME_S:
            raise ValueError(
                f"expires must follow issued by at most {MAX_LIFETIME_S} s, got "
                f"{self.expires - self.issued} s"
            )
        return self


class Delivery(Document):
    """Carries all that a robot needs to trust a policy: what the trainer answers."""

    keyring: Signed
    statement: Signed
    manifest: Signed | None = None  #: of the release for the robot that asked


class Endorsement(Document):
    """Carries the signatures of a manifest: the file beside ``policy.manifest.json``.

    With the keyring in it, a policy that is copied by hand can be verified without a trainer.
    """

    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=8)
    keyring: Signed | None = None


def share_of(robot: str, manifest: str) -> float:
    """Place ``robot`` in 0 .. 1 for a release, anew for each, so that no robot is always first."""
    digest = hashlib.sha256(f"{manifest}/{robot}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def verify_keyring(signed: Signed, owners: dict[str, str]) -> tuple[Keyring, str]:
    """Give the keyring in ``signed`` and the owner's key that signed it.

    Raises:
        PolicyRefused: where none of ``owners`` signed it, or it is no keyring.
    """
    owner = require("keyring", signed.content, signed.signatures, owners, "the robot's owner")
    return Keyring.parse(signed.document), owner


def verify_statement(
    signed: Signed, keyring: Keyring, channel: str, now_s: float
) -> tuple[Statement, str]:
    """Give the statement in ``signed`` and the channel key that signed it.

    Raises:
        PolicyRefused: where no channel key of ``keyring`` signed it, or it is another channel's.
    """
    keys = keyring.keys_for("channel", now_s)
    key = require("statement", signed.content, signed.signatures, keys, "a channel key")
    statement = Statement.parse(signed.document)
    if statement.channel != channel:
        raise PolicyRefused(f"statement: expected channel {channel!r}, got {statement.channel!r}")
    return statement, key

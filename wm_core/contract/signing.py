"""Signs documents with Ed25519, and verifies them, over exactly the bytes that are kept and sent.

A signed document is text that nobody rewrites: its signatures stand beside it, in a ``Signed`` or
in a file of their own, so that no two programs need to agree on how JSON is written.  A public key
is named by its 64 hexadecimal digits.  What a document is for is part of what is signed, so that
none can be passed off as another kind.  The library is loaded when the first key is used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import ConfigDict, Field, ValidationError

from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.frozen import Frozen

MAX_DOCUMENT_BYTES = 512_000  #: a larger signed document is refused before it is parsed
MAX_SIGNATURES = 8
KEY_PATTERN = r"^[0-9a-f]{64}$"
_SECRET_LINE = re.compile(r"wm-secret-key ([a-z]{1,16}) ([0-9a-f]{64})(?: (.*))?")
_PUBLIC_LINE = re.compile(r"([0-9a-f]{64})(?:\s+(.*))?")
_MAX_KEY_FILE_BYTES = 64_000
_INSTALL = "signatures need PyNaCl: pip install 'PyNaCl>=1.5', or apt install python3-nacl"

DocumentKind = Literal["keyring", "statement", "manifest"]

_Document = TypeVar("_Document", bound="Document")


class Document(Frozen):
    """Is read from JSON that was signed; fields of later releases are passed over.

    A later release that must not be passed over raises the document's version.
    """

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    @classmethod
    def parse(cls: type[_Document], text: str | bytes) -> _Document:
        """Read it from ``text`` (JSON); raises ``PolicyRefused`` where that does not fit."""
        what = cls.__name__.lower()
        if len(text) > MAX_DOCUMENT_BYTES:
            raise PolicyRefused(
                f"{what}: at most {MAX_DOCUMENT_BYTES} bytes are read, got {len(text)}"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PolicyRefused(f"{what} does not fit version 1: {_first(error)}") from error


class Signature(Frozen):
    """Holds one signature and the public key that made it."""

    key: str = Field(pattern=KEY_PATTERN)
    sig: str = Field(pattern=r"^[0-9a-f]{128}$")


class Signed(Document):
    """Carries a document, as the text that was signed, with its signatures beside it."""

    document: str = Field(max_length=MAX_DOCUMENT_BYTES)
    signatures: tuple[Signature, ...] = Field(min_length=1, max_length=MAX_SIGNATURES)

    @property
    def content(self) -> bytes:
        """Give the bytes that were signed."""
        return self.document.encode()


class SecretKey:
    """Signs; made by ``make`` or read from its file by ``load``.

    Args:
        seed: (32 bytes) from which both halves of the key follow.
        role: what the key is for: ``owner``, ``policy`` or ``channel``.
        name: for people.
    """

    def __init__(self, seed: bytes, role: str, name: str = "") -> None:
        self._key = load_library().SigningKey(seed)
        self._seed, self.role, self.name = seed, role, name

    @classmethod
    def make(cls, role: str, name: str = "") -> SecretKey:
        """Draw a new key from the system's random numbers."""
        return cls(bytes(load_library().SigningKey.generate()), role, name)

    @property
    def public(self) -> str:
        """Name its public half, 64 hexadecimal digits."""
        return bytes(self._key.verify_key).hex()

    def sign(self, kind: DocumentKind, content: bytes) -> Signature:
        """Sign ``content`` as a document of ``kind``."""
        sig = self._key.sign(_message(kind, content)).signature
        return Signature(key=self.public, sig=sig.hex())

    def text(self) -> str:
        """Give the line that its file holds."""
        return f"wm-secret-key {self.role} {self._seed.hex()} {self.name}".rstrip() + "\n"

    @classmethod
    def load(cls, path: Path, role: str | None = None) -> SecretKey:
        """Read the key in the file at ``path``.

        Raises:
            SettingsError: for a file that holds none, another role's, or that others may read.
        """
        text = _key_file(path)
        match = _SECRET_LINE.fullmatch(text.strip())
        if match is None:
            raise SettingsError(
                f"{path}: expected a secret key as `wm keys make` writes it, got something else"
            )
        if role is not None and match[1] != role:
            raise SettingsError(f"{path}: expected a key for {role!r}, got one for {match[1]!r}")
        if Path(path).stat().st_mode & 0o077:
            raise SettingsError(f"{path}: others may read this secret key; chmod 600 {path}")
        return cls(bytes.fromhex(match[2]), match[1], match[3] or "")


def seal(kind: DocumentKind, document: str, keys: Iterable[SecretKey]) -> Signed:
    """Sign ``document`` with each of ``keys``."""
    content = document.encode()
    return Signed(document=document, signatures=tuple(k.sign(kind, content) for k in keys))


def signers(
    kind: DocumentKind, content: bytes, signatures: Iterable[Signature], keys: Collection[str]
) -> list[str]:
    """List those of ``keys`` of which one of ``signatures`` over ``content`` is right."""
    return [s.key for s in signatures if s.key in keys and _is_right(kind, content, s)]


def require(
    kind: DocumentKind,
    content: bytes,
    signatures: Iterable[Signature],
    keys: Collection[str],
    whose: str,
) -> str:
    """Give the first of ``keys`` that signed ``content``.

    Args:
        kind: what the document is for.
        content: bytes of the document, as they were kept and sent.
        signatures: that stand beside it.
        keys: public keys that may sign it.
        whose: names them in the error.

    Raises:
        PolicyRefused: where none of them did.
    """
    known = list(signatures)
    found = signers(kind, content, known, keys)
    if found:
        return found[0]
    named = ", ".join(short(s.key) for s in known) or "nobody"
    wrong = (
        " and its signature does not fit its bytes" if any(s.key in keys for s in known) else ""
    )
    wanted = ", ".join(short(key) for key in sorted(keys)) or "none"
    raise PolicyRefused(
        f"{kind}: expected a signature by {whose} ({wanted}), got one by {named}{wrong}"
    )


def short(key: str) -> str:
    """Abbreviate a public key for people."""
    return key[:12]


def read_public_keys(path: Path) -> dict[str, str]:
    """Read the file of trusted keys at ``path``: name by public key.

    Each line is a public key of 64 hexadecimal digits and a name; empty lines and those that begin
    with ``#`` are ignored.

    Raises:
        SettingsError: for a file without a key, or with a line that is none.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(_key_file(path).splitlines(), 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        if text.startswith("wm-secret-key"):
            raise SettingsError(
                f"{path}:{number}: this is a SECRET key, which no robot may hold; copy the file "
                "owner.pub, and make new keys if this one has left its machine"
            )
        match = _PUBLIC_LINE.fullmatch(text)
        if match is None:
            raise SettingsError(
                f"{path}:{number}: expected a public key, 64 hexadecimal digits and a name, as in "
                "owner.pub"
            )
        found[match[1]] = match[2] or ""
    if not found:
        raise SettingsError(
            f"{path}: expected at least one public key, as owner.pub has; got none"
        )
    return found


def _message(kind: DocumentKind, content: bytes) -> bytes:
    return f"wm_ros {kind} 1\n".encode() + content


def _is_right(kind: DocumentKind, content: bytes, signature: Signature) -> bool:
    nacl = load_library()
    try:
        key = nacl.VerifyKey(bytes.fromhex(signature.key))
        key.verify(_message(kind, content), bytes.fromhex(signature.sig))
    except (_bad_signature(), ValueError, TypeError):
        return False
    return True


def load_library() -> Any:
    """Load the library of signatures; raises ``PolicyRefused`` where it is not installed."""
    try:
        import nacl.signing
    except ImportError as error:
        raise PolicyRefused(_INSTALL) from error
    return nacl.signing


def _bad_signature() -> type[Exception]:
    from nacl.exceptions import CryptoError

    return CryptoError


def _key_file(path: Path) -> str:
    try:
        with Path(path).open("rb") as file:
            text = file.read(_MAX_KEY_FILE_BYTES + 1)
        if len(text) > _MAX_KEY_FILE_BYTES:
            raise SettingsError(f"{path}: expected a file of keys, got more than 64 kB")
        return text.decode()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"key file {path} cannot be read: {error}") from error


def _first(error: ValidationError) -> str:
    """Say in one short line what a document lacks."""
    what = error.errors(include_input=False, include_url=False)[0]
    where = ".".join(str(part) for part in what["loc"][:4])[:80]
    return f"{where}: {what['msg'][:200]}" if where else what["msg"][:200]

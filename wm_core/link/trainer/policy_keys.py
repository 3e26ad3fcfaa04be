"""Keeps a folder of keys on the trainer's or the owner's machine: makes, rotates, revokes, signs.

``owner.key`` signs ``keyring.json`` and may lie on another machine; a keyring that waits for that
signature is ``keyring.unsigned.json``.  ``policy.key`` signs manifests, ``channel.key``
statements.  No file is overwritten but a keyring by its next number.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from wm_core.contract.errors import PolicyRefused, SettingsError
from wm_core.contract.files import write_durably
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.releases import Endorsement, Key, Keyring, Role, verify_keyring
from wm_core.contract.signing import SecretKey, Signed, read_public_keys, seal, short, signers

OWNER_KEY, OWNER_PUB, KEYRING, UNSIGNED = (
    "owner.key",
    "owner.pub",
    "keyring.json",
    "keyring.unsigned.json",
)
ROLES: tuple[Role, ...] = get_args(Role)


class PolicyKeys:
    """Holds what a learner and a service sign with, as ``wm keys make`` wrote it.

    Args:
        folder: of the keys; a secret key that is not there is not used.

    Raises:
        SettingsError: for a folder without a keyring, or a key that the keyring does not name.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._read_ns = -1
        self.refresh()

    def refresh(self) -> None:
        """Read the folder again where its keyring changed."""
        path = self.folder / KEYRING
        try:
            changed_ns = path.stat().st_mtime_ns
        except OSError as error:
            raise SettingsError(
                f"{self.folder}: expected the keyring {KEYRING} in it, which `wm keys make` "
                f"writes: {error.strerror}"
            ) from error
        if changed_ns == self._read_ns:
            return
        signed, keyring = read_keyring(path)
        secrets = {role: self._secret(role, keyring) for role in ROLES}
        self.signed, self.keyring, self._secrets = signed, keyring, secrets
        self._read_ns = changed_ns

    def secret(self, role: Role) -> SecretKey:
        """Give the secret key of ``role``; raises ``SettingsError`` where it is not here."""
        found = self._secrets[role]
        if found is None:
            raise SettingsError(f"{self.folder}: expected {role}.key to sign with, got none")
        return found

    def endorse(self, content: bytes, before: Endorsement | None = None) -> Endorsement:
        """Sign a manifest's bytes, beside the signatures that ``before`` has of trusted keys."""
        new = self.secret("policy").sign("manifest", content)
        kept = [] if before is None else [s for s in before.signatures if s.key != new.key]
        trusted = signers("manifest", content, kept, self.keyring.keys_for("policy"))
        kept = [signature for signature in kept if signature.key in trusted]
        return Endorsement(signatures=(new, *kept[:7]), keyring=self.signed)

    def endorse_folder(self, path: Path) -> PolicyFolder:
        """Sign the policy in a folder; raises ``PolicyRefused`` where it holds none."""
        folder = PolicyFolder(path)
        manifest = folder.read_manifest()
        for blob in (manifest.policy, manifest.golden):
            folder.read(blob, blob.bytes)
        content = folder.manifest.read_bytes()
        try:
            before = folder.read_signed()[1]
        except PolicyRefused:
            before = None
        endorsement = self.endorse(content, before)
        write_durably(folder.endorsement, endorsement.model_dump_json(indent=1).encode())
        return folder

    def _secret(self, role: Role, keyring: Keyring) -> SecretKey | None:
        path = self.folder / f"{role}.key"
        if not path.exists():
            return None
        key = SecretKey.load(path, role)
        if key.public not in keyring.keys_for(role):
            raise SettingsError(
                f"{path}: keyring {keyring.number} does not name this key; let the owner sign "
                f"{UNSIGNED}, or put the key's successor here"
            )
        return key


def make_keys(folder: Path, name: str = "") -> Keyring:
    """Make the keys of an owner, a learner and a service, and their first keyring.

    Raises:
        SettingsError: where one of the files is there already.
    """
    names = (OWNER_KEY, OWNER_PUB, KEYRING, UNSIGNED, *(f"{role}.key" for role in ROLES))
    there = [n for n in names if (folder / n).exists()]
    if there:
        raise SettingsError(
            f"{folder} holds {', '.join(there)} already, which are never overwritten; name "
            "another folder, or use `wm keys rotate`"
        )
    owner = SecretKey.make("owner", name)
    _write_secret(folder / OWNER_KEY, owner)
    keys = []
    for role in ROLES:
        secret = SecretKey.make(role, name)
        _write_secret(folder / f"{role}.key", secret)
        keys.append(Key(key=secret.public, roles=(role,), name=name))
    keyring = Keyring(number=1, keys=tuple(keys), issued=int(time.time()))
    write_durably(folder / OWNER_PUB, f"{owner.public} {name}".rstrip().encode() + b"\n")
    _write_keyring(folder, keyring, owner)
    return keyring


def rotate(folder: Path, role: Role) -> Keyring:
    """Make a new key for ``role``; the one before stays trusted until it is revoked.

    Where the owner's key is not here, the new secret waits as ``<role>.key.new`` for the keyring
    to be signed: see ``sign_keyring``.
    """
    keyring = _newest_keyring(folder)
    activate_new_keys(folder)  # of a rotation that was broken off
    new = folder / f"{role}.key.new"
    if new.exists():
        secret = SecretKey.load(new, role)
    else:
        secret = SecretKey.make(role, keyring.keys[0].name if keyring.keys else "")
        _write_secret(new, secret)
    key = Key(key=secret.public, roles=(role,), name=secret.name)
    following = _following(keyring, (*keyring.keys, key))
    if _publish_keyring(folder, following):
        activate_new_keys(folder)
    return following


def revoke(folder: Path, start: str) -> Keyring:
    """Take the key whose name begins with ``start`` out of the keyring.

    Raises:
        SettingsError: where no key, or more than one, begins so.
    """
    keyring = _newest_keyring(folder)
    found = [key for key in keyring.keys if start and key.key.startswith(start)]
    if len(found) != 1:
        listed = ", ".join(f"{short(key.key)} ({'+'.join(key.roles)})" for key in keyring.keys)
        raise SettingsError(
            f"expected the beginning of one key's digits, got {start!r}; there are: {listed}"
        )
    following = _following(keyring, tuple(k for k in keyring.keys if k is not found[0]))
    _publish_keyring(folder, following)
    return following


def sign_keyring(unsigned: Path, folder: Path) -> Path:
    """Sign the keyring in the file ``unsigned`` with the owner's key in ``folder``.

    Returns:
        The file of the signed keyring, beside the unsigned one.
    """
    owner = SecretKey.load(folder / OWNER_KEY, "owner")
    try:
        text = unsigned.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{unsigned} cannot be read: {error}") from error
    keyring = Keyring.parse(text)
    signed = unsigned.with_name(KEYRING)
    if signed.exists() and read_keyring(signed)[1].number >= keyring.number:
        raise SettingsError(f"{signed} has number {keyring.number} or a later one already")
    write_durably(signed, _seal(keyring, owner))
    activate_new_keys(signed.parent)
    return signed


def activate_new_keys(folder: Path) -> list[str]:
    """Put waiting keys in their places, where the keyring names them; the old ones are kept."""
    _, keyring = read_keyring(folder / KEYRING)
    moved: list[str] = []
    for role in ROLES:
        path, new = folder / f"{role}.key", folder / f"{role}.key.new"
        if not new.exists() or SecretKey.load(new, role).public not in keyring.keys_for(role):
            continue
        if path.exists():
            before = SecretKey.load(path, role)
            with contextlib.suppress(FileExistsError):  # no moment is without a key
                os.link(path, folder / f"{role}.key.old-{short(before.public)}")
        os.replace(new, path)
        moved.append(role)
    (folder / UNSIGNED).unlink(missing_ok=True)
    if moved:
        os.utime(folder / KEYRING)  # running services read the folder again
    return moved


def read_keyring(path: Path) -> tuple[Signed, Keyring]:
    """Read a signed keyring; where ``owner.pub`` lies beside it, its signature is verified."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(f"{path}: expected a keyring: {error.strerror}") from error
    try:
        signed = Signed.parse(content)
        public = Path(path).with_name(OWNER_PUB)
        if public.exists():
            return signed, verify_keyring(signed, read_public_keys(public))[0]
        return signed, Keyring.parse(signed.document)
    except PolicyRefused as error:
        raise SettingsError(f"{path}: {error}") from error


def _newest_keyring(folder: Path) -> Keyring:
    """Give the keyring that the next one follows: the unsigned one, if one waits."""
    _, keyring = read_keyring(folder / KEYRING)
    waiting = folder / UNSIGNED
    if waiting.exists():
        raise SettingsError(
            f"{waiting} still waits for the owner's signature: `wm keys sign {waiting} --keys "
            "FOLDER` on the machine that has owner.key"
        )
    return keyring


def _following(keyring: Keyring, keys: Sequence[Key]) -> Keyring:
    """Make the keyring after ``keyring``, with other keys."""
    number, now_s = keyring.number + 1, int(time.time())
    return Keyring(number=number, keys=tuple(keys), issued=now_s, expires=keyring.expires)


def _publish_keyring(folder: Path, keyring: Keyring) -> bool:
    """Sign a keyring, or let it wait for the owner; tells whether it was signed."""
    path = folder / OWNER_KEY
    if not path.exists():
        text = keyring.model_dump_json(indent=1)
        write_durably(folder / UNSIGNED, text.encode() + b"\n")
        return False
    _write_keyring(folder, keyring, SecretKey.load(path, "owner"))
    return True


def _write_keyring(folder: Path, keyring: Keyring, owner: SecretKey) -> None:
    write_durably(folder / KEYRING, _seal(keyring, owner))


def _seal(keyring: Keyring, owner: SecretKey) -> bytes:
    signed = seal("keyring", keyring.model_dump_json(), [owner])
    return signed.model_dump_json(indent=1).encode() + b"\n"


def _write_secret(path: Path, key: SecretKey) -> None:
    """Write a secret that its owner alone may read, where no file is yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError as error:
        raise SettingsError(f"{path} is there already and is never overwritten") from error
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(key.text())
        file.flush()
        os.fsync(file.fileno())

"""Authenticates robots by a file of their names and the hashes of their tokens.

Each line is ``robot sha256``, perhaps followed by ``look`` (a person, who may see all robots) and
by ``expires=2027-01-31T00:00:00Z``; empty lines and lines with ``#`` first are ignored.  What
stands in the file when a request comes is what counts: a line that was deleted or cannot be read
lets nobody in, and without the file nobody is.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import hmac
import logging
import os
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import replaced_file

log = logging.getLogger(__name__)

Found = Literal["ok", "unknown", "other", "unreadable"]

_LINE = re.compile(r"([a-z0-9_-]{1,64})\s+([0-9a-f]{64})(\s+look)?(?:\s+expires=(\S+))?(\s+look)?")
_MAX_FILE_BYTES = 1 << 24
_MODE = 0o600
OPERATOR = "operator"  #: whose token sees all robots, and may change what they run


class Permit(NamedTuple):
    """Lets whoever has the token of this hash write as ``robot``."""

    robot: str
    sha256: str
    expires_s: float | None = None  #: seconds since 1970; None: never
    may_look: bool = False  #: see all robots, and not only what ``robot`` says

    @property
    def line(self) -> str:
        """Write the entry as it stands in the file."""
        look = " look" if self.may_look else ""
        expires = "" if self.expires_s is None else f" expires={_utc(self.expires_s)}"
        return f"{self.robot} {self.sha256}{look}{expires}"

    @property
    def sees_all(self) -> bool:
        """Whether it lets in a person, who may see all robots."""
        return self.may_look or self.robot == OPERATOR

    def is_expired(self, now_s: float) -> bool:
        """Tell whether the token is no longer valid at ``now_s``."""
        return self.expires_s is not None and now_s >= self.expires_s


class Tokens:
    """Checks tokens against the file at ``path``, which is read again whenever it changes.

    Raises:
        SettingsError: where the file is missing, or has a line that is not understood: at the
            start somebody can mend it.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._entries: dict[str, list[Permit]] = {}  # by hash
        data, self._state = _read(self.path)
        self._settled = _is_settled(self._state)
        entries, wrong = _parse(data)
        if wrong:
            raise SettingsError(f"{self.path}:{wrong[0]}: expected `robot sha256 of its token`")
        self._index(entries)

    @property
    def readable(self) -> bool:
        """Whether the file can be read just now; where it cannot, nobody is let in."""
        return self._refresh()

    def check(self, token: str | None, robot: str | None) -> Found:
        """Tell whether ``token`` is known, and belongs to ``robot`` where one is named.

        ``unreadable``: nobody can be let in just now.
        """
        if not self._refresh():
            return "unreadable"
        permits = self._permits(token)
        if not permits:
            return "unknown"
        return "ok" if robot is None or any(p.robot == robot for p in permits) else "other"

    def seen_by(self, token: str | None) -> set[str] | None:
        """Name the robots that whoever has ``token`` may see: its own; None for all of them."""
        permits = self._permits(token) if self._refresh() else []
        return None if any(p.sees_all for p in permits) else {p.robot for p in permits}

    def _permits(self, token: str | None) -> list[Permit]:
        """List what lets ``token`` in.

        The token is looked up by its hash, and the hashes are compared in constant time: how long
        that takes says nothing about a token.
        """
        given = _digest(token or "")
        now_s = time.time()
        found = [
            entry
            for entry in self._entries.get(given, ())
            if hmac.compare_digest(entry.sha256, given) and not entry.is_expired(now_s)
        ]
        return found if token else []

    def _refresh(self) -> bool:
        """Read the file if it has changed; returns whether there is one."""
        try:
            if _state(self.path.stat()) == self._state and self._settled:
                return True
            data, state = _read(self.path)
            self._settled = _is_settled(state)
        except (OSError, SettingsError) as error:
            if self._state:
                log.error("nobody is let in: tokens file %s: %s", self.path, error)
            self._entries, self._state = {}, ()
            return False
        entries, wrong = _parse(data)
        if wrong:
            log.error("%s: lines %s let nobody in: not understood", self.path, wrong[:10])
        self._index(entries)
        self._state = state
        return True

    def _index(self, entries: list[Permit]) -> None:
        self._entries = {}
        for entry in entries:
            self._entries.setdefault(entry.sha256, []).append(entry)


def add_token(
    path: Path, robot: str, *, expires_s: float | None = None, may_look: bool = False
) -> str:
    """Make a new token of ``robot`` and add its hash to the file at ``path``.

    Args:
        path: the tokens file; it is made where it is missing.
        robot: name under which the token may write.
        expires_s: seconds since 1970 from which on it is no longer valid; None: never.
        may_look: whether it is of a person, who may see all robots.

    Returns:
        The token, which is kept nowhere.
    """
    token = secrets.token_urlsafe(32)
    entry = Permit(robot, _digest(token), expires_s, may_look)
    if not _LINE.fullmatch(entry.line):
        raise SettingsError(f"robot {robot!r}: expected 1 to 64 of a-z, 0-9, _ and -")
    with _rewriting(path) as lines:
        lines.append(entry.line.encode())
    return token


def list_tokens(path: Path) -> list[Permit]:
    """List what the file at ``path`` lets in, expired tokens included.

    Raises:
        SettingsError: where there is no such file, or a line is not understood.
    """
    data, _ = _read(path)
    entries, wrong = _parse(data)
    if wrong:
        raise SettingsError(f"{path}:{wrong[0]}: expected `robot sha256 of its token`")
    return entries


def revoke_tokens(path: Path, robot: str) -> int:
    """Remove all tokens of ``robot`` from the file at ``path``; returns how many there were."""
    _read(path)
    with _rewriting(path) as lines:
        kept = [line for line in lines if not _is_of(line, robot)]
        removed = len(lines) - len(kept)
        lines[:] = kept
    return removed


def _is_of(line: bytes, robot: str) -> bool:
    words = line.split()
    return bool(words) and words[0] == robot.encode()


@contextlib.contextmanager
def _rewriting(path: Path) -> Iterator[list[bytes]]:
    """Change the lines of the file in one piece, and let nobody else do so meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path.resolve()  # a link stays a link
    lock = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, _MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lines = path.read_bytes().splitlines() if path.exists() else []
        yield lines
        with replaced_file(path) as file:
            os.fchmod(file.fileno(), _MODE)
            file.write(b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise SettingsError(f"tokens file {path} cannot be written: {error}") from error
    finally:
        os.close(lock)


def _read(path: Path) -> tuple[bytes, tuple[int, ...]]:
    try:
        with path.open("rb") as file:
            state = _state(os.fstat(file.fileno()))
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingsError(
            f"tokens file {path} cannot be read: {error.strerror or error}; "
            f"`wm robot add NAME --tokens {path}` makes one"
        ) from error
    if len(data) > _MAX_FILE_BYTES:
        raise SettingsError(f"tokens file {path} has more than {_MAX_FILE_BYTES} bytes")
    return data, state


def _state(stat: os.stat_result) -> tuple[int, ...]:
    """What changes when a file is written or replaced."""
    return stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _is_settled(state: tuple[int, ...]) -> bool:
    """Tell whether a further change is sure to show: the clocks of files are coarse."""
    return time.time_ns() - max(state[2:]) > 10**9


def _parse(data: bytes) -> tuple[list[Permit], list[int]]:
    """Read the entries, and the numbers of lines that are none."""
    entries, wrong = [], []
    for number, raw in enumerate(data.splitlines(), 1):
        line = raw.decode("ascii", "replace").strip()
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        try:
            if match is None:
                raise ValueError
            expires_s = None if match[4] is None else parse_time_s(match[4])
            may_look = bool(match[3] or match[5])
            entries.append(Permit(match[1], match[2], expires_s, may_look))
        except ValueError:
            wrong.append(number)
    return entries, wrong


def parse_time_s(text: str) -> float:
    """Read a time such as ``2027-01-31`` or ``2027-01-31T12:00:00Z`` as seconds since 1970.

    Raises:
        ValueError: where it is no such time.
    """
    moment = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=datetime.timezone.utc)
    return moment.timestamp()


def _utc(seconds: float) -> str:
    moment = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()

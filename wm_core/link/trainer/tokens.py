"""Authenticates robots by a file of their names and the hashes of their tokens.

Each line is ``robot sha256``; empty lines and lines that begin with ``#`` are ignored.  The
file is read again when it changes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from pathlib import Path
from typing import Literal

from wm_core.contract.errors import SettingsError

log = logging.getLogger(__name__)

_LINE = re.compile(r"([a-z0-9_-]{1,64})\s+([0-9a-f]{64})")


class Tokens:
    """Checks tokens against the file at ``path``."""

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        self._read_ns = -1
        self._hashes: list[tuple[str, str]] = []
        self._refresh()

    def check(self, token: str | None, robot: str | None) -> Literal["ok", "unknown", "other"]:
        """Tell whether ``token`` is known, and belongs to ``robot`` where one is named.

        All entries are compared, each in constant time.
        """
        try:
            self._refresh()
        except SettingsError as error:  # a file that is just being edited must lock no robot out
            log.error("the tokens read before stay valid: %s", error)
        given = _digest(token or "")
        owners = [name for name, known in self._hashes if hmac.compare_digest(known, given)]
        if not owners or not token:
            return "unknown"
        return "ok" if robot is None or robot in owners else "other"

    def _refresh(self) -> None:
        try:
            changed_ns = self.path.stat().st_mtime_ns
            if changed_ns == self._read_ns:
                return
            lines = self.path.read_text().splitlines()
        except OSError as error:
            raise SettingsError(f"tokens file {self.path} cannot be read: {error}") from error
        hashes = []
        for number, line in enumerate(lines, 1):
            if not line.strip() or line.startswith("#"):
                continue
            match = _LINE.fullmatch(line.strip())
            if match is None:
                raise SettingsError(f"{self.path}:{number}: expected `robot sha256 of its token`")
            hashes.append((match[1], match[2]))
        self._hashes, self._read_ns = hashes, changed_ns


def add_token(path: Path, robot: str) -> str:
    """Make a new token of ``robot`` and add its hash to the file at ``path``."""
    token = secrets.token_urlsafe(32)
    line = f"{robot} {_digest(token)}"
    if not _LINE.fullmatch(line):
        raise SettingsError(f"robot {robot!r}: expected 1 to 64 of a-z, 0-9, _ and -")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(line + "\n")
    return token


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()

"""Chooses among the policies that there are which one is tried, waits or is refused; no ROS.

A policy that is copied file by file does not fit its manifest yet.  It is looked at again whenever
one of its files changed, and meanwhile the next older one that is good runs.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from wm_core.contract.errors import PolicyRefused, PolicySlow, PolicyUnready
from wm_core.contract.files import json_text, write_durably
from wm_core.contract.policy_folder import PolicyFolder
from wm_ros.policies.source import PolicySource

_STILL_S = 10.0  #: seconds without a byte after which a copy counts as broken off
_KEPT = 20
_FIRST_WAIT_S, _LONGEST_WAIT_S = 5.0, 600.0  #: before a policy is tried again

Fingerprint = tuple[tuple[int, ...], ...]


@dataclass(slots=True)
class _Known:
    """What was found out about a folder, as long as its files stay as they are."""

    fingerprint: Fingerprint
    since_s: float  #: steady time since which it has been so
    lacks: str  #: what is not there yet
    identity: str  #: hash of the policy; empty where no manifest says it
    hopeless: bool = False  #: refused
    tries: int = 0  #: that failed for a cause which may pass
    again_s: float = 0.0  #: steady time before which it is not tried again
    said: str = ""  #: the last reason that was said of it, without its numbers


class Shelf:
    """Remembers of every policy folder whether it is worth trying.

    Args:
        source: which policies there are.
        on_refused: called with each reason once.
        memory: file that keeps which policies were rolled back; None for none.
    """

    def __init__(
        self,
        source: PolicySource,
        on_refused: Callable[[str], None],
        memory: Path | None = None,
    ) -> None:
        self._source, self._on_refused, self._memory = source, on_refused, memory
        self._known: dict[Path, _Known] = {}
        self._banned = _remembered(memory)  # hashes of policies that were rolled back
        self._unwritten = False
        self.first_wait_s = _FIRST_WAIT_S
        self.refused = 0
        self.refusals: list[str] = []  #: the latest 20 reasons
        self.waiting = ""  #: which newer policy is still being copied

    def worth_trying(
        self, running: tuple[Path, str] | None, *, older_too: bool = False
    ) -> Iterator[Path]:
        """Go through the folders that may be loaded, the newest first, down to the running one.

        Args:
            running: folder and hash of the policy that runs or is about to; None: there is none.
            older_too: go on behind the running one, which has failed.
        """
        versions = self._source.versions()
        self._known = {path: self._known[path] for path in versions if path in self._known}
        waiting = ""
        for folder in versions:
            known = self._look(folder)
            if known.lacks:
                waiting = waiting or f"{folder.name}: {known.lacks}"
                self._give_up(folder, known)
            self.waiting = waiting
            if (folder, known.identity) == running:
                if not older_too:
                    return
                continue
            if known.identity in self._banned:
                if running is None:
                    self.waiting = waiting = waiting or self._why_banned(folder)
            elif not (known.lacks or known.hopeless) and time.monotonic() >= known.again_s:
                yield folder

    def refuse(self, folder: Path, error: Exception | str) -> None:
        """Remember that ``folder`` was refused, until one of its files changes; say it once.

        Where the cause may pass, it is tried again, at first soon and then ever more seldom.
        """
        known = self._look(folder)
        if isinstance(error, PolicyUnready | PolicySlow):
            wait_s = min(_LONGEST_WAIT_S, self.first_wait_s * 2.0 ** min(known.tries, 10))
            known.tries, known.again_s = known.tries + 1, time.monotonic() + wait_s
        else:
            known.hopeless = True
        self._say(folder, known, str(error))

    def ban(self, identity: str) -> None:
        """Take the policy with this hash never again."""
        self._banned.add(identity)
        self._unwritten = True

    def write(self) -> None:
        """Keep on the disk which policies were rolled back; where it refuses, try again later."""
        if self._memory is None or not self._unwritten:
            return
        try:
            write_durably(self._memory, json_text(sorted(self._banned)).encode())
        except OSError:
            return
        self._unwritten = False

    def problem(self) -> str:
        """Say why no policy, or no newer one, runs; empty where there is nothing to say."""
        return (
            self.waiting or (self.refusals[-1] if self.refusals else "") or self._source.problem()
        )

    def note(self, reason: str) -> None:
        """Count a refusal and say it."""
        self.refused += 1
        self.refusals = [*self.refusals[1 - _KEPT :], reason]
        self._on_refused(reason)

    def _look(self, folder: Path) -> _Known:
        """Look whether one of the files changed, and if so, forget what was known."""
        fingerprint = PolicyFolder(folder).fingerprint()
        known = self._known.get(folder)
        if known is None or known.fingerprint != fingerprint:
            said = "" if known is None else known.said
            lacks, identity = PolicyFolder(folder).lacks(), _identity(folder)
            known = _Known(fingerprint, time.monotonic(), lacks, identity, said=said)
            self._known[folder] = known
        return known

    def _why_banned(self, folder: Path) -> str:
        how = f"; delete {self._memory} to take it again" if self._memory else ""
        return f"{folder.name}: it was rolled back{how}"

    def _give_up(self, folder: Path, known: _Known) -> None:
        """Refuse a copy to which nothing was added for a while; it is still looked at."""
        if time.monotonic() - known.since_s > _STILL_S:
            self._say(folder, known, f"{known.lacks}, and nothing came for {_STILL_S:g} s")

    def _say(self, folder: Path, known: _Known, reason: str) -> None:
        kind = kind_of(reason)
        if kind != known.said:
            known.said = kind
            self.note(f"{folder.name} refused: {reason}")


def kind_of(reason: str) -> str:
    """Strip a reason of its numbers and hashes, so that it is said once while they change."""
    return re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", reason)


def _remembered(memory: Path | None) -> set[str]:
    """Read the hashes of policies that were rolled back; none where the file is not whole."""
    try:
        found = json.loads(memory.read_text(encoding="utf-8")) if memory else []
    except (OSError, ValueError):
        return set()
    return (
        {entry for entry in found if isinstance(entry, str)} if isinstance(found, list) else set()
    )


def _identity(folder: Path) -> str:
    """Read the hash of the policy in ``folder``; empty where no manifest says it."""
    try:
        return PolicyFolder(folder).read_manifest().policy.sha256
    except PolicyRefused:
        return ""

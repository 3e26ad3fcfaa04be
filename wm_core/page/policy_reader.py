"""Reads which policies a run has published, what each channel and each robot runs."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_core.contract.errors import PolicyRefused, StoreError
from wm_core.contract.files import read_json
from wm_core.contract.policy_folder import PolicyFolder, version_folder, versions_in
from wm_core.contract.signing import short as short_key
from wm_core.link.trainer.channels import REPORTS_NAME, Channels, Course
from wm_core.link.trainer.policy_repository import GATES_NAME, gates_of

MOST_VERSIONS, MOST_CHANNELS, MOST_ROBOTS = 6, 8, 50  #: that are shown


@dataclass(frozen=True)
class VersionFacts:
    """One version of the line of policies."""

    version: int
    updates: int = 0  #: of the learner when it was made
    created: str = ""
    sha256: str = ""  #: of its file
    signer: str = ""  #: short form of the key that signed it; empty where it is not signed
    gates: dict[str, float] = field(default_factory=dict)  #: measures of its promotion
    problem: str = ""  #: why it cannot be read


@dataclass(frozen=True)
class ChannelFacts:
    """What one channel's robots are to run."""

    name: str
    course: Course | None
    problem: str = ""


@dataclass(frozen=True)
class PolicyFacts:
    """All of it at one moment."""

    versions: tuple[VersionFacts, ...] = ()  #: newest first
    channels: tuple[ChannelFacts, ...] = ()
    robots: tuple[tuple[str, dict[str, Any]], ...] = ()  #: (name, what it said last)


class PolicyReader:
    """Looks at the folder of policies; a version is read once.

    Args:
        root: folder of the policies, such as ``runs/x/policies``.
    """

    def __init__(self, root: Path) -> None:
        self.channels = Channels(root)
        self._known: dict[int, tuple[tuple[object, ...], VersionFacts]] = {}

    def look(self) -> PolicyFacts:
        """Read what changed."""
        root, line = self.channels.root, self.channels.line
        newest = versions_in(root / line)[-MOST_VERSIONS:]
        found = tuple(self._version(version) for version in reversed(newest))
        self._known = {v: self._known[v] for v in newest if v in self._known}
        names = self.channels.names()[:MOST_CHANNELS]
        robots = read_json(root / REPORTS_NAME)
        said = sorted((k, v) for k, v in robots.items() if isinstance(v, dict))
        return PolicyFacts(found, tuple(map(self._channel, names)), tuple(said[:MOST_ROBOTS]))

    def _channel(self, name: str) -> ChannelFacts:
        try:
            return ChannelFacts(name, self.channels.course(name))
        except StoreError as error:
            return ChannelFacts(name, None, str(error))

    def _version(self, version: int) -> VersionFacts:
        folder = PolicyFolder(version_folder(self.channels.root / self.channels.line, version))
        state: tuple[object, ...] = folder.fingerprint()
        known = self._known.get(version)
        if known is not None and known[0] == state:
            return known[1]
        try:
            manifest = folder.read_manifest()
        except PolicyRefused as error:
            return VersionFacts(version, problem=str(error))
        found = VersionFacts(
            version,
            updates=manifest.learner_updates,
            created=manifest.created,
            sha256=manifest.policy.sha256,
            signer=_signer(folder),
            gates=gates_of(read_json(folder.path / GATES_NAME)),
        )
        self._known[version] = (state, found)
        return found


def _signer(folder: PolicyFolder) -> str:
    try:
        return short_key(folder.read_signed()[1].signatures[0].key)
    except (PolicyRefused, IndexError):
        return ""


def since(said: dict[str, Any]) -> float | None:
    """Seconds since a robot said what it runs; None where nobody knows."""
    seen_s = said.get("seen_s")
    if not isinstance(seen_s, int) or not 0 <= seen_s < 2**36:
        return None
    return max(0.0, time.time() - seen_s)

"""Reads what a run folder says: its learner, returns, dreams, stored experience and policies."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_core.library import live_folder
from wm_core.library.returns_so_far import BASELINES
from wm_core.library.run_lock import is_running
from wm_core.link.trainer.settings import POLICIES
from wm_core.page.experience import Experience, ExperienceView
from wm_core.page.policy_reader import PolicyFacts, PolicyReader
from wm_core.page.returns import Curves, ReturnsReader
from wm_core.page.watched_file import json_file, picture_file

STATUS, SETTINGS = "status.json", "settings.json"
_TOUCH_S = 3.0


@dataclass(frozen=True)
class RunView:
    """What a run's files say at one moment; empty where they say nothing."""

    root: Path
    exists: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)
    pid: int | None = None  #: of the process that learns now
    curves: Curves = field(default_factory=Curves)
    baselines: dict[str, Any] = field(default_factory=dict)  #: random, best: known levels
    learner: dict[str, Any] = field(default_factory=dict)  #: live figures
    dream: dict[str, Any] = field(default_factory=dict)
    dream_age_s: float | None = None
    pictures: dict[str, int] = field(
        default_factory=dict
    )  #: of the dream: a number for each state
    experience: ExperienceView = field(default_factory=ExperienceView)
    policies: PolicyFacts = field(default_factory=PolicyFacts)


class RunReader:
    """Looks at a run folder about once a second; nothing is made there but ``live/watched``.

    Args:
        root: the run folder, which need not be there yet.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        live = live_folder.live_of(root)
        self._files = {
            "settings": json_file(root / SETTINGS),
            "status": json_file(root / STATUS),
            "baselines": json_file(root / BASELINES),
            "learner": json_file(live / live_folder.LEARNER),
            "dream": json_file(live / live_folder.DREAM),
        }
        self.pictures = {
            name: picture_file(live / live_folder.strip_name(name)) for name in live_folder.STRIPS
        }
        self._returns = ReturnsReader(root / "metrics.jsonl")
        self.policies = PolicyReader(root / POLICIES)
        self._experience = Experience(root)
        self._touched_s = -_TOUCH_S

    def look(self) -> RunView:
        """Read what changed since the last look."""
        self._touch()
        found: dict[str, Any] = {name: file.look() for name, file in self._files.items()}
        changed_s = self._files["dream"].changed_s
        return RunView(
            self.root,
            exists=self.root.is_dir(),
            pid=is_running(self.root),
            curves=self._returns.look(),
            dream_age_s=None if changed_s is None else time.time() - changed_s,
            pictures={name: f.reads for name, f in self.pictures.items() if f.look()},
            experience=self._experience.look(),
            policies=self.policies.look(),
            **found,
        )

    def close(self) -> None:
        """Close the ledger; a second call does nothing."""
        self._experience.close()

    def _touch(self) -> None:
        """Ask the learner for live figures, for as long as somebody looks."""
        if time.monotonic() - self._touched_s < _TOUCH_S or not self.root.is_dir():
            return
        self._touched_s = time.monotonic()
        with contextlib.suppress(OSError):  # a folder that may only be read
            live_folder.touch(self.root)


def nothing_yet(run: RunView, what: str) -> str:
    """Say in a sentence why there is nothing to show; ``what`` where a learner is there."""
    if not run.exists:
        return f"The folder {run.root} is not there yet."
    if run.pid is None and not run.status:
        return "No learner has begun here: `wm train --follow --run RUN` does."
    return f"Nothing to show yet: {what}."

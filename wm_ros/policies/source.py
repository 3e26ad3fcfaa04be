"""Says which policies a robot may run, newest first, and why there is none; no ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Protocol

from wm_core.contract.policy_folder import PolicyFolder

_LISTED = 5


class PolicySource(Protocol):
    """Says which policy folders could be running."""

    def versions(self) -> list[Path]:
        """List the policy folders, the newest first."""
        ...

    def problem(self) -> str:
        """Say why there is no policy at all; empty where there is one."""
        ...


class FolderSource:
    """Finds policies in a folder: the folder itself, or its numbered versions.

    Args:
        root: folder of one policy or of numbered versions, or the ``.onnx`` file of one.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def is_policy(self) -> bool:
        """Tell whether the folder is a policy itself, be it whole or not."""
        return any(path.exists() for path in PolicyFolder(self.root).files())

    def versions(self) -> list[Path]:
        """List the policies of which at least one file is there, the newest first."""
        try:
            if self.is_policy:
                return [self.root]
            numbered = [p for p in self.root.iterdir() if p.name.isdecimal() and p.is_dir()]
        except OSError:
            return []
        numbered.sort(key=lambda p: int(p.name), reverse=True)
        return [p for p in numbered if any(f.exists() for f in PolicyFolder(p).files())]

    def latest(self) -> Path | None:
        """Find the newest policy folder, or None while there is none."""
        return next(iter(self.versions()), None)

    def problem(self) -> str:
        """Say why there is no policy at all; empty where there is one."""
        root = Path(os.path.abspath(self.root))
        try:
            return self._problem(root)
        except OSError as error:
            return f"policy_dir {root} cannot be read: {error.strerror}"

    def _problem(self, root: Path) -> str:
        if self.versions():
            return ""
        if not root.exists():
            nearest = next(parent for parent in root.parents if parent.exists())
            has = _listed(nearest)
            return f"policy_dir {root} does not exist; {nearest} does and holds {has}"
        if not root.is_dir():
            return f"policy_dir {root} is a file: expected a folder with policy.onnx in it"
        return (
            f"policy_dir {root} has no policy.onnx and no numbered versions, such as 00000001; "
            f"it holds {_listed(root)}"
        )


def _listed(folder: Path) -> str:
    """Name the first entries of a folder."""
    names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    more = ", ..." if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + more if names else "nothing"

"""Finds the policies of a run: published ones by version, and what a checkpoint has learnt."""

from __future__ import annotations

from pathlib import Path

import torch

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.checkpoint import BEST, Trained, load_agent


def policy_of(run: Path, version: str | int = "newest") -> Path | None:
    """Find the folder of a published policy of ``run``; None where the run has published none.

    Args:
        run: the run folder.
        version: newest; best, by evaluation; or its number.

    Raises:
        SettingsError: for a version that is not kept; the message says which are.
    """
    published = PolicyRepository(run / "policies")
    versions = published.versions()
    if version in ("newest", BEST):
        line = published if version == "newest" else best_policies(run)
        last = line.latest()
        return None if last is None else line.folder(last.version)
    if not versions:
        return None
    name = str(version)
    if not (name.isascii() and name.isdigit()):
        raise SettingsError(f"version: expected best, newest or a number, got {name!r}")
    if int(name) not in versions:
        raise SettingsError(
            f"{run} keeps no policy {name}: there are {', '.join(map(str, versions))}; with "
            "--checkpoint the number is that of a checkpoint's updates"
        )
    return published.folder(int(name))


def learnt_agent(
    run: Path, version: str | int = "newest", device: str | torch.device = "cpu"
) -> Trained:
    """Load the agent in a checkpoint of ``run``, whose policy was learnt.

    Args:
        run: the run folder.
        version: as for ``checkpoint.find``.
        device: of its weights.

    Raises:
        SettingsError: where the world model alone is learnt: its actor is as it was drawn.
        StoreError: where there is no such checkpoint.
    """
    trained = load_agent(run, device, version=version)
    if trained.config.train.policy == "off":
        raise SettingsError(
            f"{run} has learnt a world model and no policy (train.policy off): go on with "
            f"`wm train --run {run} --resume --train.policy on` first"
        )
    return trained


def best_policies(run: Path) -> PolicyRepository:
    """Give the repository that holds the best policy of ``run`` alone, once there is one."""
    return PolicyRepository(run / "policies", BEST, keep=1)

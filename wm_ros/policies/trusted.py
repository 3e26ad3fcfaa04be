"""Decides whose policies this robot runs, from its parameters; no ROS."""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.signing import read_public_keys
from wm_core.contract.trust import Trust
from wm_core.link.robot.access import parse_address
from wm_core.link.robot.carrier import folder_trainer
from wm_core.link.robot.policy_client import Running
from wm_core.link.robot.sockets import is_this_machine
from wm_ros.settings import PolicySettings

MEMORY_NAME = "trust.json"  #: what the robot was told last, in its state_dir


def trust_of(settings: PolicySettings, folder: Path | None = None) -> Trust | None:
    """Make what verifies policies; None where unsigned ones may run.

    Signatures are needed wherever keys are trusted.  Without keys, ``auto`` lets unsigned policies
    run that the owner put on the robot, or whose trainer is the same machine.

    Args:
        settings: ``trusted_keys``, ``require_signature`` and where policies come from.
        folder: of the node's files; None remembers nothing.

    Raises:
        SettingsError: for a file of keys that cannot be used.
    """
    s = settings
    if s.require_signature == "never":
        return None
    owners = read_public_keys(Path(s.trusted_keys).expanduser()) if s.trusted_keys else {}
    asks = (
        bool(s.trainer_url) and folder_trainer(s.trainer_url) is None
    )  # a folder gives no policies
    foreign = asks and not s.policy_dir
    if foreign and s.require_signature == "auto":
        foreign = not is_this_machine(parse_address(s.trainer_url).host)
    if owners or foreign or s.require_signature == "always":
        return Trust(owners, None if folder is None else folder / MEMORY_NAME)
    return None


def open_trusted(folder: Path, trust: Trust | None) -> PolicyRunner:
    """Open a policy whose signature was verified, where that is needed.

    Raises:
        PolicyRefused: as ``PolicyRunner.open`` does, and for a policy that is not trusted.
    """
    if trust is None:
        return PolicyRunner.open(folder)
    verified = trust.check(PolicyFolder(folder))
    runner = PolicyRunner.open(folder)
    if runner.manifest != verified:
        runner.close()
        raise PolicyRefused("the manifest was exchanged while the policy was opened")
    return runner


def running_of(runner: PolicyRunner | None) -> Running | None:
    """Name the policy that acts; None before the first one, or without a manifest."""
    manifest = None if runner is None else runner.manifest
    return None if manifest is None else Running(manifest.version, manifest.policy.sha256)

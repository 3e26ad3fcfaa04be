"""Examines the machine: versions, disk, trainer, transport profile, policy files; no graph."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import platform
import shutil
from pathlib import Path

from wm_core.contract.errors import WmError
from wm_core.contract.files import try_lock
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.signing import load_library, short
from wm_core.link.robot.carrier import folder_trainer
from wm_core.link.robot.client import FAILURES, ConnectionSettings, TrainerClient
from wm_ros.doctor.findings import CheckResult, fail, ok, warn
from wm_ros.policies.source import FolderSource
from wm_ros.policies.trusted import trust_of
from wm_ros.process import home
from wm_ros.settings import PolicySettings
from wm_ros.stream import read_token

OLDEST = {"numpy": (1, 26), "onnxruntime": (1, 17), "pydantic": (2, 7)}
LEAST_FREE_BYTES = 1_000_000_000
PROFILES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
SEGMENT_BYTES = 512_000  #: of Fast DDS's shared memory without a profile


def versions(rmw: str) -> list[CheckResult]:
    """Say which Python, ROS and packages run here; ``rmw`` is the middleware's name."""
    distribution = os.environ.get("ROS_DISTRO", "of unknown distribution")
    found = [ok("python", f"{platform.python_version()} on {platform.machine()}")]
    found.append(ok("ros", f"{distribution}, {rmw}"))
    for name, oldest in OLDEST.items():
        try:
            version = importlib.metadata.version(name)
            importlib.import_module(name)
        except (importlib.metadata.PackageNotFoundError, ImportError) as error:
            advice = f"pip install '{name}>={'.'.join(map(str, oldest))}' for this Python"
            found.append(fail(name, f"cannot be imported: {error}", advice))
            continue
        numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
        if numbers < oldest:
            least = ".".join(map(str, oldest))
            found.append(fail(name, f"{version} is too old", f"pip install '{name}>={least}'"))
        else:
            found.append(ok(name, version))
    return found


def policy(s: PolicySettings) -> tuple[list[CheckResult], PolicyRunner | None]:
    """Load and prove the policy that the node would run."""
    if not s.policy_dir:
        source = "the trainer's" if s.trainer_url else "none"
        if s.trainer_url:
            return [ok("policy", f"{source}: {s.trainer_url}, channel {s.channel}")], None
        advice = "set policy_dir to a policy's folder, or trainer_url"
        return [fail("policy", "neither policy_dir nor trainer_url is set", advice)], None
    root = Path(s.policy_dir).expanduser()
    if not root.is_dir():
        parent = next(p for p in root.absolute().parents if p.exists())
        advice = f"the nearest folder that exists is {parent}"
        return [fail("policy", f"policy_dir {root} is no folder", advice)], None
    folder = FolderSource(root).latest()
    if folder is None:
        advice = "it must hold policy.onnx, or folders with the numbers of versions"
        return [fail("policy", f"there is no policy in {root}", advice)], None
    try:
        runner = PolicyRunner.load(folder, max_tolerance=s.max_tolerance or None)
    except (WmError, OSError) as error:
        return [fail("policy", f"{folder}: {error}", "copy it again, whole")], None
    card = runner.card
    text = (
        f"version {card.version} of {card.task or 'a task without a name'} ({card.preset}), "
        f"{1 / card.spec.period_s:g} Hz, repeats its golden rollout"
    )
    return [ok("policy", text)], runner


def keys(s: PolicySettings) -> list[CheckResult]:
    """Say by whom policies must be signed, and whether one in ``policy_dir`` is."""
    try:
        trust = trust_of(s)
        if trust is None:
            if s.require_signature != "never":
                return []
            advice = "make keys with `wm keys make`, and name owner.pub in trusted_keys"
            return [warn("keys", "unsigned policies run: require_signature is never", advice)]
        if not trust.owners:
            advice = "copy owner.pub of `wm keys make` here and name it in trusted_keys"
            return [fail("keys", "policies must be signed, and no key is trusted", advice)]
        load_library()
        folder = FolderSource(Path(s.policy_dir).expanduser()).latest() if s.policy_dir else None
        if folder is not None:
            trust.check(PolicyFolder(folder))
    except WmError as error:
        return [fail("keys", str(error), "docs/policies.md says how policies are signed")]
    names = ", ".join(f"{short(key)} {name}".strip() for key, name in trust.owners.items())
    return [ok("keys", f"policies must be signed under {names}")]


def disk(s: PolicySettings, namespace: str, name: str) -> list[CheckResult]:
    """Say whether the node can write its files, and who else is there."""
    folder = home.home_of(s.state_dir, namespace, name)
    spool = Path(s.spool_dir or folder / "spool").expanduser()
    found = [_folder("state folder", folder, needed=0)]
    if s.record:
        found.append(_folder("spool", spool, needed=min(s.spool.max_bytes, LEAST_FREE_BYTES)))
    lock = folder / home.LOCK_NAME
    if lock.exists() and os.access(lock, os.W_OK):
        handle = try_lock(lock)
        if handle is None:
            found.append(ok("node", f"runs: {home.occupant(lock)}"))
        else:
            os.close(handle)
    return found


def _folder(area: str, folder: Path, needed: int) -> CheckResult:
    there = next(p for p in (folder.absolute(), *folder.absolute().parents) if p.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        advice = f"give this user write permission on {there}, or set another folder"
        return fail(area, f"{folder} cannot be written", advice)
    free = shutil.disk_usage(there).free
    if free < needed:
        advice = "make room, or set a smaller spool.max_bytes"
        return warn(area, f"{folder}: {free / 1e9:.1f} GB are free", advice)
    return ok(area, f"{folder}, {free / 1e9:.0f} GB free")


def trainer(s: PolicySettings) -> list[CheckResult]:
    """Ask the trainer whether it is there and knows this robot's token."""
    if not s.trainer_url:
        return []
    url = s.trainer_url
    try:
        if (folder := folder_trainer(url)) is not None:
            return [_folder("trainer", folder, needed=LEAST_FREE_BYTES)]
        token = read_token(s.token_file)
        deadlines = ConnectionSettings(connect_s=3.0, read_s=5.0)
        client = TrainerClient(url, token=token, settings=deadlines, access=s)
    except WmError as error:
        return [fail("trainer", str(error), "mend trainer_url, token_file or ca_file")]
    try:
        if client.request("GET", "/v1/health").status != 200:
            advice = "see whether the address is that of `wm serve`"
            return [fail("trainer", f"{url} answers, but not as a trainer", advice)]
        reply = client.request("GET", f"/v1/policies/{s.channel}?after=-1&wait=0")
    except FAILURES as error:
        advice = "start `wm serve --host 0.0.0.0` there, and see address, port and firewall"
        return [fail("trainer", f"{url} does not answer: {error}", advice)]
    finally:
        client.close()
    if reply.status in (401, 403):
        advice = "make a token: wm serve --root RUN --tokens FILE --new-token NAME"
        return [fail("trainer", f"{url} refuses the token ({reply.status})", advice)]
    if reply.status == 204:
        return [warn("trainer", f"{url} has no policy yet", "start wm train --follow there")]
    if reply.status != 200:
        return [fail("trainer", f"{url} answers {reply.status}", "see the log of wm serve")]
    return [ok("trainer", f"{url} answers and accepts the token")]


def profile(rmw: str, largest_image: int) -> list[CheckResult]:
    """Say whether large images can pass Fast DDS; ``largest_image`` is bytes of one message."""
    if "fastrtps" not in rmw or largest_image <= SEGMENT_BYTES:
        return []
    path = next((os.environ[name] for name in PROFILES if os.environ.get(name)), "")
    size = f"images have {largest_image / 1e6:.1f} MB"
    if path and Path(path).is_file():
        return [ok("transport", f"{size}; profile {path}")]
    advice = (
        "export FASTRTPS_DEFAULT_PROFILES_FILE=<share/wm_ros>/config/fastdds.xml for the camera's "
        "driver and the node, or use a CompressedImage"
    )
    return [warn("transport", f"{size} and no Fast DDS profile is set", advice)]

"""Finds and locks the folder in which one robot's node keeps its files; no ROS.

The folder is told by namespace and name of the node, so that two robots on one machine share
nothing.  A lock keeps a second node out, and the system releases it however the first one ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
from contextlib import ExitStack
from pathlib import Path

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import try_lock
from wm_core.link.robot.journal import sessions_in

log = logging.getLogger(__name__)

LOCK_NAME = "node.lock"


def home_of(state_dir: str, namespace: str, name: str) -> Path:
    """Locate the folder of a node's files.

    Args:
        state_dir: what the owner chose; empty: ``wm_ros`` in ROS_HOME or ~/.ros.
        namespace: of the node, such as ``/robot1``.
        name: of the node, such as ``policy``.
    """
    if state_dir:
        return Path(state_dir).expanduser()
    return _default_root().joinpath(*namespace.strip("/").split("/"), name)


def _default_root() -> Path:
    return Path(os.environ.get("ROS_HOME", "~/.ros")).expanduser() / "wm_ros"


def occupy(folder: Path, closers: ExitStack, *, node: str) -> None:
    """Keep other nodes out of ``folder`` until ``closers`` are closed.

    A folder that cannot be written is used all the same: nothing is kept there, so nothing can be
    confused.

    Args:
        folder: of the node's files; made where it is missing.
        closers: releases the lock.
        node: full name of the node, for whoever finds the folder occupied.

    Raises:
        SettingsError: where another node is there.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = try_lock(path)
    except OSError as error:
        log.error("the state folder cannot be written, so no report is kept: %s", error)
        return
    if handle is None:
        raise SettingsError(
            f"state folder {folder} is in use by {occupant(path)}; two nodes cannot share one: "
            "give each robot a namespace of its own (namespace:=robot2), or a state_dir"
        )
    closers.callback(os.close, handle)
    with contextlib.suppress(OSError):  # a full disk
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{node}, process {os.getpid()}\n".encode(), 0)


def occupant(lock: Path) -> str:
    """Say which node wrote the lock file ``lock``."""
    with contextlib.suppress(OSError):
        return lock.read_text(errors="replace").strip()[:200] or "another node"
    return "another node"


def take_over_old_spool(folder: Path, spool: Path, *, node: str, robot: str) -> int:
    """Move experience that waits where earlier releases kept it; returns how many sessions.

    They kept the files of every ``node`` of one name in one folder, whatever its namespace.  Only
    sessions of this ``robot`` are moved, and none that a running node still writes.

    Args:
        folder: of the node's files.
        spool: where this node keeps experience that waits.
        node: name of the node, without its namespace.
        robot: name under which this robot's experience is stored.
    """
    old = _default_root() / node / "spool"
    if folder == old.parent or spool.resolve() == old.resolve():
        return 0
    moved = 0
    for session in sessions_in(old):
        if session.robot != robot:
            continue
        handle = session.try_lock()
        if handle is None:
            continue
        target = spool / robot / session.session
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            os.rename(session.path, target)
            moved += 1
        except OSError as error:
            log.error("experience of an earlier release stays in %s: %s", session.path, error)
        finally:
            os.close(handle)
    return moved

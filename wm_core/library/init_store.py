"""Begins a run with the steps of a finished store, and goes on collecting from there.

They are copied into the run's own store, through the door that robots' chunks come through, so
that replay draws from both alike; the other store is only read.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from wm_core.contract.errors import ChunkRefused, SettingsError, StoreError, shown
from wm_core.contract.files import json_text, read_json, write_atomically
from wm_core.contract.spec import Spec
from wm_core.format.chunk import chunk_path
from wm_core.library.run_folder import TrainSettings
from wm_core.library.sources import check_is_store, check_store_fits
from wm_core.store.examine import read_stored
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, ChunkRow, Ledger
from wm_core.store.reader import Store

NAME = "init_store.json"  #: in the run folder: what was copied, and what could not be


def check_init_store(settings: TrainSettings, spec: Spec) -> None:
    """Refuse ``--init-store`` where it is no store, or nothing in it fits ``spec``.

    Raises:
        SettingsError: saying what is there instead.
    """
    root = settings.init_store
    if root is None or (settings.run / NAME).exists():
        return  # or copied long ago: the other store may be gone
    if settings.store is not None:
        raise SettingsError(
            "expected --init-store, whose steps go to RUN/store, or --store, got both: leave one "
            "out"
        )
    check_is_store(root, "--init-store")
    with contextlib.closing(Store(root, cache_bytes=0, spec=spec)) as store:
        store.refresh()
        check_store_fits(store, spec)


def copy_steps(settings: TrainSettings, undo: contextlib.ExitStack) -> int:
    """Copy what is stored in ``--init-store`` to the run's store, each chunk once.

    A second call copies what a kill kept from being copied.

    Args:
        settings: of the run.
        undo: forgets the copy where the start is refused after all.

    Returns:
        Steps that were there to copy; ``left_out_of_copy`` says which chunks are not among them.

    Raises:
        StoreError: where disk or ledger take no chunk now; the next start goes on.
    """
    source, target, run = settings.init_store, settings.store_root, settings.run
    if source is None:
        return 0
    if (run / NAME).exists():
        return copied_steps(run)
    steps, left_out = 0, dict[str, str]()
    with (
        contextlib.closing(Ledger(source / LEDGER_NAME, read_only=True)) as theirs,
        contextlib.closing(Ledger(target / LEDGER_NAME)) as ours,
    ):
        for row in theirs.since(theirs.pruned_through()):
            reason = "" if ours.find(row.key) is not None else _copy(source, target, ours, row)
            if reason:
                left_out[f"{row.robot}/{row.session}/{row.seq:08d}"] = reason
            else:
                steps += row.steps
    undo.callback((run / NAME).unlink, missing_ok=True)
    about = {"store": str(source), "steps": steps, "left_out": left_out}
    write_atomically(run / NAME, f"{json_text(about)}\n".encode())
    return steps


def _copy(source: Path, target: Path, ledger: Ledger, row: ChunkRow) -> str:
    """Copy one chunk to the store ``target``; returns why it cannot be, or nothing."""
    try:
        data = read_stored(chunk_path(source, row.key), row)
    except (OSError, ChunkRefused) as error:
        return str(error)
    # it was acknowledged once: a bound of what comes over the network is not for it
    verdict = ingest(target, ledger, row.key, data, row.sha256, max_bytes=len(data))
    if verdict.kind in ("no_room", "busy"):
        raise StoreError(
            f"--init-store {source} could not be copied to {target}: {verdict.reason}; see to it "
            "and give the same command again"
        )
    return "" if verdict.ok else f"{verdict.kind}: {verdict.reason}"


def copied_steps(run: Path) -> int:
    """The number of steps that ``run`` began with."""
    return int(read_json(run / NAME).get("steps", 0))


def left_out_of_copy(run: Path) -> str:
    """Say in one line which chunks of ``--init-store`` the run does not have, or nothing."""
    found = read_json(run / NAME)
    left_out = found.get("left_out")
    if not left_out:
        return ""
    name, reason = next(iter(left_out.items()))
    return (
        f"{len(left_out)} chunks of --init-store {found['store']} could not be copied, such as "
        f"{name} ({shown(reason)}); {run / NAME} names them all"
    )

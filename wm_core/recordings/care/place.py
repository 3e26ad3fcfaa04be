"""Finds the store that is looked after, and keeps other writers out where it is changed."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from wm_core.contract.errors import StoreError
from wm_core.contract.files import try_lock
from wm_core.contract.system_faults import system_fault
from wm_core.store.existing import existing_store
from wm_core.store.ledger import LEDGER_NAME, Ledger

SERVICE_LOCK, RUN_LOCK = "service.lock", "run.lock"  #: of `wm serve`, and of a training


def store_at(path: Path) -> Path:
    """Give the store's folder of ``path``: a run folder, or the folder of a store itself.

    Raises:
        StoreError: where there is none, naming the nearest.
    """
    inside = path / "store"
    return inside if (inside / LEDGER_NAME).is_file() else existing_store(path)


@contextlib.contextmanager
def reading(root: Path) -> Iterator[Ledger]:
    """Open the ledger of the store ``root`` to read; nothing is written, on no disk.

    Raises:
        StoreError: where the ledger is damaged, of another version or held by another process.
    """
    with explained(root):
        ledger = Ledger(root / LEDGER_NAME, read_only=True)
        try:
            yield ledger
        finally:
            ledger.close()


@contextlib.contextmanager
def alone(root: Path) -> Iterator[None]:
    """Keep `wm serve` and `wm train` out of the run around the store ``root`` meanwhile.

    A store without a run folder around it has no such locks; there the ledger's own is all.

    Raises:
        StoreError: where either works there already, or the folder cannot be written to.
    """
    with explained(root), contextlib.ExitStack() as held:
        if root.name == "store":
            run = root.absolute().parent
            for name, what in ((SERVICE_LOCK, "served"), (RUN_LOCK, "being trained")):
                there = (run / name).exists()
                lock = try_lock(run / name)
                if lock is None:
                    raise StoreError(
                        f"{run} is {what} by another process; stop it first, then try again"
                    )
                held.callback(os.close, lock)
                if not there:
                    held.callback((run / name).unlink, missing_ok=True)
        yield


@contextlib.contextmanager
def explained(root: Path) -> Iterator[None]:
    """Turn what disk and database refuse into one line that names the store.

    Raises:
        StoreError: in place of an ``OSError`` or an error of SQLite.
    """
    try:
        yield
    except sqlite3.Error as error:
        fault = system_fault(error) or f"{error}; look at the disk and at the rights of the folder"
        raise StoreError(f"the ledger of {root} could not be used: {fault}") from error
    except OSError as error:
        fault = system_fault(error)
        if fault is None or error.filename is None:
            where = error.filename or root
            fault = f"{where}: {fault or f'{error.strerror or error}; look at the disk'}"
        raise StoreError(fault) from error

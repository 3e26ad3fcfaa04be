"""Finds the store that somebody named, or says in one line what lies there instead."""

from __future__ import annotations

from pathlib import Path

from wm_core.contract.errors import StoreError, nearest
from wm_core.contract.files import siblings
from wm_core.store.ledger import LEDGER_NAME


def existing_store(root: Path) -> Path:
    """Give ``root`` where it is the folder of a store; nothing is made.

    Raises:
        StoreError: where it is none: missing (naming the nearest), a run folder (naming its
            store), a file, or a folder of something else.
    """
    if (root / LEDGER_NAME).is_file():
        return root
    if (root / "store" / LEDGER_NAME).is_file():
        raise StoreError(f"{root} is a run folder; its store is {root / 'store'}")
    if root.name == "store" and (root.parent / LEDGER_NAME).is_file():
        raise StoreError(f"{root.parent} is a store itself; expected the run folder around it")
    if root.is_dir():
        raise StoreError(
            f"{root} is no store: it has no {LEDGER_NAME}; expected the folder store/ of a run, "
            "or that of `wm serve`"
        )
    if root.exists():
        raise StoreError(f"{root} is a file; expected the folder of a store")
    missing = root
    while not missing.parent.is_dir() and missing.parent != missing:
        missing = missing.parent
    what = "store" if missing == root else "folder"
    raise StoreError(nearest(missing.name, siblings(missing), what=f"{what} in {missing.parent}"))

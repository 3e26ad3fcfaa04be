"""Puts the store in order that a run fills by itself, before it fills it further."""

from __future__ import annotations

from wm_core.library.run_folder import TrainSettings
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.store.reconcile import reconcile


def tidy(settings: TrainSettings, store: Store) -> None:
    """Enter or remove the files that a killed process of the run left in ``store`` without a row.

    Else they would take room that nobody counts.  A store that robots fill belongs to the
    service, which does the same, and one that is only read stays as it is.
    """
    if settings.follow or settings.store is not None:
        return
    ledger = Ledger(store.root / LEDGER_NAME)
    try:
        reconcile(store.root, ledger)
    finally:
        ledger.close()
    store.refresh()

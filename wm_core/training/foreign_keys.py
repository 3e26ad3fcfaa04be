"""Finds in one copy of a store the steps that the keys of another copy name.

A key holds the number of a session, by its place in the ledger; copies that were filled in another
order number their sessions differently.
"""

from __future__ import annotations

import numpy as np

from wm_core.store.reader import Store

_SHIFT, _INDEX = 32, 2**32 - 1


class ForeignKeys:
    """Translates the keys of another copy of ``store``.

    Attributes:
        told: robot and session of each session number of the other copy.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.told: list[tuple[str, str]] = []

    def own(self, keys: np.ndarray) -> np.ndarray:
        """(B,) int64 keys in this copy, of ``keys`` (B,) int64; -1 for a session it lacks."""
        numbers = {name: number for number, name in enumerate(self._store.sessions)}
        translated = [numbers.get(name, -1) for name in self.told]
        own = np.array(translated, np.int64)[keys >> _SHIFT]
        return np.where(own < 0, -1, (own << _SHIFT) | (keys & _INDEX))

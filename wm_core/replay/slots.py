"""Gives each replayed step a slot in a ring, so that tensors can hold something about it."""

from __future__ import annotations

import numpy as np

INDEX = (1 << 32) - 1  #: a key is session number << 32 | index in the session


def grown(table: np.ndarray, size: int) -> np.ndarray:
    """Extend ``table`` (n,) by -1 to at least ``size`` entries, in steps that double it."""
    if size <= len(table):
        return table
    more = np.full(max(size, 2 * len(table)) - len(table), -1, table.dtype)
    return np.concatenate([table, more])


class Slots:
    """Keeps a ring of slots by the key of their step; the oldest entries leave first.

    Each session has a table from index to slot.  An entry counts while the slot still has its
    key, so nothing needs to be deleted; tables are made anew whenever the ring begins again.

    Args:
        capacity: how many slots there are; 0 remembers nothing.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._keys = np.full(capacity, -1, np.int64)
        self._tables: dict[int, np.ndarray] = {}  # session -> (index,) slot
        self._next = self._filled = 0

    def __len__(self) -> int:
        return self._filled

    def find(self, keys: np.ndarray) -> np.ndarray:
        """Find the slot (N,) int64 of each of ``keys`` (N,) int64; -1 where it has none."""
        slots, index = np.full(len(keys), -1, np.int64), keys & INDEX
        if not self.capacity:
            return slots
        sessions = keys >> 32
        for session in np.unique(sessions).tolist():
            table = self._tables.get(session)
            if table is not None:
                rows = np.flatnonzero((sessions == session) & (index < len(table)))
                slots[rows] = table[index[rows]]
        slots[(slots < 0) | (self._keys[slots] != keys)] = -1
        return slots

    def claim(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Give ``keys`` (N,) int64 slots; a key that has one keeps it.

        Returns:
            (N,) int64 slot of each key, -1 where it was passed over: negative, or more than the
            ring holds; and (N,) int64 row of ``keys`` where the same key stands last.
        """
        order = np.argsort(keys, kind="stable")
        is_end = np.append(keys[order][1:] != keys[order][:-1], True)
        group = np.cumsum(is_end) - is_end
        last = np.empty(len(keys), np.int64)
        last[order] = order[is_end][group]
        distinct = np.flatnonzero((last == np.arange(len(keys))) & (keys >= 0))
        distinct = distinct[max(0, len(distinct) - self.capacity) :]
        if len(distinct):
            self._enter(keys[distinct])
        return self.find(keys), last

    def _enter(self, keys: np.ndarray) -> None:
        """Give distinct ``keys`` (n,) slots; those that new ones push out enter anew."""
        slots, enters = self.find(keys), np.zeros(len(keys), bool)
        while True:
            count = int(enters.sum())
            pushed = (slots - self._next) % self.capacity < count
            if np.array_equal(enters, again := (slots < 0) | pushed):
                break
            enters = again
        new, places = keys[enters], (self._next + np.arange(count)) % self.capacity
        self._keys[places] = new
        if self._next + count >= self.capacity:
            self._tables = {}
            places = np.flatnonzero(self._keys >= 0)
        self._write(self._keys[places], places)
        self._filled = max(self._filled, min(self._next + count, self.capacity))
        self._next = (self._next + count) % self.capacity

    def _write(self, keys: np.ndarray, slots: np.ndarray) -> None:
        """Enter ``slots`` (n,) of ``keys`` (n,) in the tables of their sessions."""
        sessions, index = keys >> 32, keys & INDEX
        for session in np.unique(sessions).tolist():
            rows = sessions == session
            table = self._tables.get(session, np.zeros(0, np.int32))
            self._tables[session] = table = grown(table, int(index[rows].max()) + 1)
            table[index[rows]] = slots[rows]

    def oldest_first(self) -> tuple[np.ndarray, np.ndarray]:
        """List (n,) int64 keys that have slots and (n,) int64 their slots, the oldest first."""
        order = (np.arange(self.capacity) + self._next) % max(self.capacity, 1)
        order = order[self._keys[order] >= 0]
        return self._keys[order], order

    def load(self, keys: np.ndarray) -> None:
        """Hold exactly ``keys`` (n,) int64, at most ``capacity``, in slots 0 .. n - 1."""
        self._keys[:], self._tables = -1, {}
        self._keys[: len(keys)] = keys
        self._write(keys, np.arange(len(keys)))
        self._filled = len(keys)
        self._next = len(keys) % self.capacity if self.capacity else 0

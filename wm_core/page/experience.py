"""Follows what is stored of a run: what became of every step, and what its episodes returned."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wm_core.library.episode_book import EpisodeBook, store_of
from wm_core.library.returns_so_far import returns_so_far
from wm_core.library.step_account import StepAccount

_SHARE = (
    50.0  # looking may take a fiftieth of the time, but for a store that is being caught up with
)


@dataclass(frozen=True)
class ExperienceView:
    """What the store says at one moment, as plain data."""

    account: dict[str, Any] = field(default_factory=dict)  #: of ``StepAccount.now``
    returns: dict[str, Any] = field(default_factory=dict)  #: of ``returns_so_far``
    chunks: int = 0
    problem: str = ""  #: why the store cannot be read


class Experience:
    """Looks at a run's store, as often as that is cheap.

    Args:
        run: the run folder, which need not be there yet.
    """

    def __init__(self, run: Path) -> None:
        self._run = run
        self._book = EpisodeBook(store_of(run))
        self._account = StepAccount(run, self._book)
        self._next_s, self._version = 0.0, -1
        self._found = ExperienceView()

    def look(self) -> ExperienceView:
        """Take in what has arrived since the last look."""
        begin_s = time.monotonic()
        if begin_s < self._next_s:
            return self._found
        self._follow()
        book = self._book
        book.refresh()
        returns = self._found.returns
        if book.version != self._version:
            self._version, returns = book.version, returns_so_far(book.episodes(), self._run)
        account = self._account.now()
        self._found = ExperienceView(account, returns, book.chunks, book.problem)
        took_s = time.monotonic() - begin_s
        self._next_s = begin_s if book.is_behind else begin_s + _SHARE * took_s
        return self._found

    def close(self) -> None:
        """Close the ledger; a second call does nothing."""
        self._book.close()

    def _follow(self) -> None:
        """Look at the store that the run learns from, which may be another one than its own."""
        store = store_of(self._run)
        if store != self._book.root:
            self._book.close()
            self._book, self._version = EpisodeBook(store), -1
            self._account = StepAccount(self._run, self._book)

"""Says what became of a chunk: the one answer that the sender and the store's owner get."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["stored", "known", "conflict", "damaged", "version", "too_large", "no_room", "busy"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Says what became of a chunk; only ``stored`` and ``known`` are acknowledgements."""

    kind: Kind
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.kind in ("stored", "known")

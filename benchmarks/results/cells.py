"""Texts of the cells that several tables of results have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def way_to_expert(mean: float, sticks: Mapping[str, Any]) -> str:
    """Say how far ``mean`` is on the way from random play to the expert; empty without one."""
    if sticks["expert"] is None:
        return ""
    low, high = sticks["random"]["mean"], sticks["expert"]["mean"]
    return f"{(mean - low) / (high - low):.0%}".replace("%", " %")


def each(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Each value that rows have for ``key`` once, in order, with commas."""
    values = (f"{row[key]:g}" if isinstance(row[key], float) else str(row[key]) for row in rows)
    return ", ".join(dict.fromkeys(values))

"""Defines the base of every settings model."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Frozen(BaseModel):
    """Holds settings that never change and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def ranged(default: float, low: float, high: float, text: str) -> Any:
    """Make a field from ``low`` to ``high``, both included; ``text`` describes it."""
    return Field(default, ge=low, le=high, description=text)

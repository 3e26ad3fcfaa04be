"""Defines the base of every settings model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Holds settings that never change and refuses fields that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

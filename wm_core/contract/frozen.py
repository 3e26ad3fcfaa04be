"""The base of every settings model."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Frozen(BaseModel):
    """Immutable settings that refuse fields they do not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")

"""Settings of replay: how experience is kept and drawn."""

from __future__ import annotations

from pydantic import Field

from wm_core.contract.spec import Frozen


class ReplayConfig(Frozen):
    """How experience is kept and drawn."""

    batch: int = Field(16, gt=0)  #: B
    length: int = Field(64, gt=1)  #: T
    cache_bytes: int = Field(1_000_000_000, ge=0)  #: decoded images kept in memory
    store_max_bytes: int = Field(50_000_000_000, gt=0)  #: on disk; the oldest go first
    latents: int = Field(1_000_000, ge=0)  #: steps whose latents the learner remembers
    online_queue: bool = True  #: train once on each new window, freshest first

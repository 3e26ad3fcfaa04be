"""What a run has shown of itself before it was killed: no counter that anybody read goes back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wm_core.contract.files import read_json
from wm_core.training.status import NAME


@dataclass(frozen=True)
class Shown:
    """The counters of a run's last status; zeros where there is none."""

    updates: int = 0
    episodes: int = 0
    cpu_s: float = 0.0

    @classmethod
    def of(cls, run: Path) -> Shown:
        """Read the status that an earlier process of ``run`` wrote last."""
        said = read_json(run / NAME)
        updates, episodes = (int(_number(said.get(name))) for name in ("updates", "episodes"))
        return cls(updates, episodes, _number(said.get("cpu_s")))


def _number(value: Any) -> float:
    """Take a finite number from 0 on; 0 for anything else."""
    is_number = isinstance(value, int | float) and math.isfinite(value) and value > 0
    return value if is_number else 0

"""Ends a training whose numbers are no longer finite, before a broken checkpoint is written."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from wm_core.contract.errors import WmError
from wm_core.training.checkpoint import listed


class TrainingDiverged(WmError):
    """A loss or a weight is no longer a finite number."""


def check_finite(means: Mapping[str, float], *, weights: bool, updates: int, run: Path) -> None:
    """Raise ``TrainingDiverged`` unless every number is finite, naming the last good state.

    Args:
        means: losses and their like, by name.
        weights: whether the weights are finite.
        updates: so far.
        run: the run folder, with its checkpoints.
    """
    broken = [name for name, mean in sorted(means.items()) if not math.isfinite(mean)]
    broken += [] if weights else ["a weight"]
    if broken:
        good = listed(run)
        raise TrainingDiverged(
            f"{', '.join(broken)} ceased to be finite at update {updates}; last good state: "
            f"{good[-1] if good else None}. Go on from it with --resume and a lower --optim.lr, "
            "or look for odd data with `wm info`"
        )

"""Chooses the number format that an update computes in."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import torch

from wm_core.config import Config


@lru_cache(maxsize=1)
def cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 in hardware; if not, bfloat16 is slower."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


class Dtypes(NamedTuple):
    """Autocast types of an update; None where float32 stays float32."""

    everything: torch.dtype | None
    convolutions: torch.dtype | None


def choose_dtypes(config: Config, device: torch.device) -> Dtypes:
    """Choose the autocast types for ``config`` on ``device``.

    ``auto`` takes bfloat16 on GPUs, and on CPUs that have it in hardware: for everything where
    the layers are wide, else for the convolutions alone, because converting narrow layers costs
    more than it gains.

    Deviates: DreamerV3 computes in bfloat16 everywhere; ``deter``, norms, logits and losses are
    float32 here, so that a policy exported in float32 acts as the trained one.
    """
    precision = config.optim.precision
    if precision == "auto":
        if device.type == "cuda":
            precision = "bfloat16"
        elif device.type == "cpu" and cpu_has_bfloat16():
            precision = "bfloat16" if config.world.units >= 256 else "conv_bfloat16"
    half = torch.bfloat16
    if precision == "bfloat16":
        return Dtypes(half, half)
    return Dtypes(None, half if precision == "conv_bfloat16" else None)

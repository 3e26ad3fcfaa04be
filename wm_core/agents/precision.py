"""Which number format the learner computes in."""

from __future__ import annotations

from pathlib import Path

import torch

from wm_core.config import Config


def cpu_has_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 in hardware; without it, bfloat16 loses time."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def choose_dtype(config: Config, device: torch.device) -> torch.dtype | None:
    """The autocast type for ``config`` on ``device``; None for plain float32.

    ``auto`` takes bfloat16 on GPUs, and on CPUs that have it in hardware where the layers are
    wide enough to gain from it.
    """
    precision = config.optim.precision
    if precision == "auto":
        wide = config.world.units >= 256
        gains = device.type == "cuda" or (device.type == "cpu" and wide and cpu_has_bfloat16())
        precision = "bfloat16" if gains else "float32"
    return torch.bfloat16 if precision == "bfloat16" else None

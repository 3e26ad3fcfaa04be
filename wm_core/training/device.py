"""Which device to train on: the command line's choice, never a library's."""

from __future__ import annotations

from typing import Literal

import torch

from wm_core.contract.errors import SettingsError

Device = Literal["auto", "cpu", "cuda"]


def choose(name: Device) -> torch.device:
    """The device that ``name`` means here; ``auto`` is a CUDA device where there is one.

    Raises:
        SettingsError: for ``cuda`` where torch sees none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError("--device cuda: torch sees no CUDA device here; use cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")

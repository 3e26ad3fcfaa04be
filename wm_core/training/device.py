"""Chooses the device to train on from the name that a user gave."""

from __future__ import annotations

from typing import Literal

import torch

from wm_core.contract.errors import SettingsError

Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: Device) -> torch.device:
    """Give the device that ``name`` means here; ``auto`` is a CUDA device where there is one.

    Raises:
        SettingsError: for ``cuda`` where torch sees none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError("--device cuda: torch sees no CUDA device here; use cpu or auto")
    return torch.device("cuda" if name == "cuda" or (name == "auto" and available) else "cpu")

"""Chooses the device to train on from the name that a user gave."""

from __future__ import annotations

from typing import Literal

import torch

from wm_core.contract.errors import SettingsError

Device = Literal["auto", "cpu", "cuda"]


def choose_device(name: Device, index: int | None = None) -> torch.device:
    """Give the device that ``name`` means here; ``auto`` is a CUDA device where there is one.

    Args:
        name: as a user gave it.
        index: of the CUDA device, for one of several workers on a machine; None: torch's choice.

    Raises:
        SettingsError: for ``cuda`` where torch sees none, or fewer than the workers need.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        raise SettingsError("--device cuda: torch sees no CUDA device here; use cpu or auto")
    if not available or name == "cpu":
        return torch.device("cpu")
    if index is not None and index >= (there := torch.cuda.device_count()):
        raise SettingsError(
            f"expected a CUDA device for each worker, got {there} for more than {index}: take "
            "fewer --workers, or --device cpu"
        )
    return torch.device("cuda") if index is None else torch.device("cuda", index)

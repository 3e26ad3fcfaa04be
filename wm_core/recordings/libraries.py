"""Imports the libraries that read other formats when they are needed, and says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from wm_core.contract.errors import RecordingError
from wm_core.contract.extras import install_extras


def import_library(module: str, *, needed_for: str) -> ModuleType:
    """Import ``module`` of the extra ``data``.

    Args:
        module: such as ``rosbags.rosbag2``.
        needed_for: what cannot be done without it, as in "rosbag2 and MCAP files".

    Raises:
        RecordingError: where it is not installed, with the command that installs it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        top = module.split(".")[0]
        raise RecordingError(
            f"{needed_for} need {top}, got {error}; {install_extras('data')}"
        ) from error

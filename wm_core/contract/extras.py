"""Says how the extras of this package are installed; it is on no package index."""

from __future__ import annotations

from pathlib import Path


def install_extras(*extras: str) -> str:
    """Give the command that installs ``extras``: of the folder that this code runs from.

    Args:
        extras: names of extras in setup.py, such as ``data``.
    """
    root = Path(__file__).resolve().parents[2]
    listed = ",".join(extras)
    if (root / "setup.py").is_file():
        return f"pip install -e '{root}[{listed}]'"
    return f"pip install '.[{listed}]' in the folder of wm_ros"

"""The look that all plots of the results share."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def figure_of() -> tuple[Any, Any]:
    """An empty figure of matplotlib and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=110, layout="constrained")
    axes = figure.add_subplot()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#e4e7eb", lw=0.8)
    return figure, axes


def save(figure: Any, axes: Any, path: Path) -> None:
    """Write ``figure`` as a PNG, its legend beside the axes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    FigureCanvasAgg(figure).print_png(path)

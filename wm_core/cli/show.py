"""``wm show``: what the model imagines beside what happened, as an animated GIF and a PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.errors import StoreError
from wm_core.contract.spec import Frozen
from wm_core.replay.sampler import Sampler
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.metrics import gif
from wm_core.training.rollout_video import OBSERVED, render, sample_windows

CACHE_BYTES = 64_000_000


class ShowSettings(Frozen):
    """Imagined against real: a few frames are seen, the rest is imagined from the actions.

    Rows from the top: what the camera saw, what the model believes, the difference.  The bar is
    green while the model sees and orange where it imagines.
    """

    run: Path  #: the run folder whose newest checkpoint is shown
    store: Path | None = None  #: where the real frames come from; None: the run's own store
    to: Path | None = None  #: folder for imagined.gif and imagined.png; None: the run folder
    windows: int = Field(4, gt=0)  #: side by side
    length: int = Field(45, gt=1)  #: agent steps of each
    observed: int = Field(OBSERVED, gt=0)  #: agent steps that the model sees
    seed: int = Field(0, ge=0)  #: of the windows and the model's draws


def main(argv: Sequence[str]) -> int:
    """Write the two pictures; returns the exit status."""
    settings = parse(ShowSettings, argv, verb="show")
    trained = checkpoint.load_agent(settings.run)
    root = settings.store or _store_of(settings.run)
    store = Store(root, cache_bytes=CACHE_BYTES)
    store.refresh()
    sampler = Sampler(
        store,
        batch=settings.windows,
        length=settings.length,
        rng=np.random.default_rng(settings.seed),
        online_queue=False,
    )
    if not sampler.can_sample():
        raise StoreError(f"{root}: expected a run of {settings.length} steps, found none")
    windows = sample_windows(sampler, settings.windows)
    video = render(trained.agent, windows, seed=settings.seed, observed=settings.observed)
    folder = settings.to or settings.run
    folder.mkdir(parents=True, exist_ok=True)
    movie, strip = folder / "imagined.gif", folder / "imagined.png"
    movie.write_bytes(gif(video.frames(), fps=1.0 / trained.spec.period_s))
    Image.fromarray(video.strip()).save(strip)
    out = Console(soft_wrap=True, highlight=False)
    out.print(f"{movie}\n{strip}")
    out.print(
        f"update {trained.updates}: imagined frames differ by {video.error:.1f} of 255 levels on "
        f"average over {settings.length - settings.observed} steps"
    )
    return 0


def _store_of(run: Path) -> Path:
    """The store that ``run`` learnt from, as its settings say."""
    from wm_core.library.runs import load_settings

    return load_settings(run).store_root

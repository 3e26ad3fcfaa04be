"""Pictures of what a trained model imagines beside what really happened."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from wm_core.library.run_folder import load_settings
from wm_core.replay.sampler import Sampler
from wm_core.store.reader import Store
from wm_core.training import checkpoint
from wm_core.training.gif import gif
from wm_core.training.rollout_video import OBSERVED, render, sample_windows

CACHE_BYTES = 64_000_000


class Pictures(NamedTuple):
    """The two files that ``show`` wrote, and how far the imagined frames are from the real."""

    movie: Path  #: animated GIF
    strip: Path  #: PNG of one window, time from left to right
    error: float  #: mean absolute difference of the imagined frames, in levels of 255
    updates: int  #: of the checkpoint
    imagined: int  #: steps of each window
    cut: str  #: why these are fewer than asked for; empty where they are not


def show(
    run: str | Path,
    *,
    version: str | int = "newest",
    store: str | Path | None = None,
    to: str | Path | None = None,
    windows: int = 4,
    length: int = 45,
    observed: int = OBSERVED,
    seed: int = 0,
) -> Pictures:
    """Write imagined.gif and imagined.png of a checkpoint of ``run``.

    Args:
        run: the run folder.
        version: newest, best (by evaluation), or the updates of a checkpoint.
        store: where the real frames come from; None: the store that the run learnt from.
        to: folder for the pictures; None: the run folder.
        windows: how many are shown side by side.
        length: agent steps of each window, fewer where the world model cannot imagine so many.
        observed: agent steps that the model sees before it imagines the rest.
        seed: of the windows and of the model's draws.

    Raises:
        StoreError: where there is no checkpoint, or no window of ``length`` steps.
    """
    run = Path(run)
    trained = checkpoint.load_agent(run, version=version)
    reach, cut = trained.agent.world.reach, ""
    if reach is not None and length - observed >= reach:
        cut = (
            f"{reach - 1} steps are imagined, not {length - observed}: this world model sees the "
            f"last {reach} steps (world.transformer.window), and must see the first"
        )
        length = observed + reach - 1
    root = Path(store) if store is not None else load_settings(run).store_root
    source = Store(root, cache_bytes=CACHE_BYTES)
    source.refresh()
    try:
        rng = np.random.default_rng(seed)
        sampler = Sampler(source, batch=windows, length=length, rng=rng, online_queue=False)
        batch = sample_windows(sampler, windows)
    finally:
        source.close()
    video = render(trained.agent, batch, seed=seed, observed=observed)
    folder = Path(to) if to is not None else run
    folder.mkdir(parents=True, exist_ok=True)
    movie, strip = folder / "imagined.gif", folder / "imagined.png"
    movie.write_bytes(gif(video.frames(), fps=1.0 / trained.spec.period_s))
    Image.fromarray(video.strip()).save(strip)
    return Pictures(movie, strip, video.error, trained.updates, length - observed, cut)

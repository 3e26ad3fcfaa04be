"""Films of the episodes of an evaluation, as animated GIFs with step and return below the picture.

The picture is what the environment renders, where it has ``rgb_array``, or else the first image
that the policy sees.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wm_core.contract.errors import SettingsError
from wm_core.contract.files import write_atomically
from wm_core.contract.spec import Spec
from wm_core.training.collect import EnvAdapter
from wm_core.training.gif import encode_gif

MAX_FRAMES = 600  #: of a film; of a longer episode every second, fourth ... frame is kept
_LEAST_PX, _MOST_PX = 240, 480  #: longer side of a picture
_BAR_PX = 18  #: height of the line of text
_COLOURS = 128


@dataclass
class _Film:
    """One film while it is made: frames at one in ``every`` steps."""

    frames: list[Image.Image] = field(default_factory=list)
    every: int = 1


class Films:
    """Films the first episodes of an evaluation, and writes each when it has ended.

    Args:
        folder: receives episode_000.gif and so on; it is made where it is missing.
        count: episodes that are filmed, from the first on.
        spec: of the policy.
    """

    def __init__(self, folder: Path, count: int, spec: Spec) -> None:
        self._folder, self._count, self._spec = folder, count, spec
        self._films: dict[int, _Film] = {}
        self.written: list[Path] = []  #: in the order in which their episodes ended

    def see(self, episode: int, adapter: EnvAdapter, total: float, length: int) -> None:
        """Add the present picture to the film of ``episode``."""
        if episode >= self._count:
            return
        film = self._films.setdefault(episode, _Film())
        if length % film.every:
            return
        picture = _sized(picture_of(adapter, self._spec))
        film.frames.append(_captioned(picture, f"step {length}   return {total:.4g}"))
        if len(film.frames) > MAX_FRAMES:
            del film.frames[1::2]
            film.every *= 2

    def end(self, episode: int) -> None:
        """Write the film of ``episode``."""
        film = self._films.pop(episode, None)
        if film is None:
            return
        path = self._folder / f"episode_{episode:03d}.gif"
        write_atomically(path, encode_gif(film.frames, fps=1.0 / self._spec.period_s))
        self.written.append(path)


def can_film(adapter: EnvAdapter, spec: Spec) -> bool:
    """Whether the environment renders or the policy sees an image."""
    return bool(spec.images) or adapter.env.render_mode == "rgb_array"


def picture_of(adapter: EnvAdapter, spec: Spec) -> np.ndarray:
    """Take the picture (H, W, 3) uint8 that the environment renders, or that the policy sees.

    Raises:
        SettingsError: where there is neither, or ``render()`` gives no such picture.
    """
    if adapter.env.render_mode == "rgb_array":
        frame: Any = np.asarray(adapter.env.render())
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise SettingsError(
                f"the task's render(): expected a picture (H, W, 3) uint8, got {frame.dtype} "
                f"{frame.shape}"
            )
        return frame
    if not spec.images:
        raise SettingsError(
            "nothing to film: expected an environment that renders rgb_array, or a policy that "
            "sees an image; got neither"
        )
    key, image = next(iter(spec.images.items()))
    return image.picture(adapter.state.obs[key])


def _sized(picture: np.ndarray) -> Image.Image:
    """Enlarge a small picture (H, W, 3) by a whole factor, and reduce a large one."""
    image, longest = Image.fromarray(picture), max(picture.shape[:2])
    if longest < _LEAST_PX:
        factor = -(-_LEAST_PX // longest)
        size = (image.width * factor, image.height * factor)
        return image.resize(size, Image.Resampling.NEAREST)
    if longest > _MOST_PX:
        size = (image.width * _MOST_PX // longest, image.height * _MOST_PX // longest)
        return image.resize((max(1, size[0]), max(1, size[1])), Image.Resampling.BOX)
    return image


def _captioned(image: Image.Image, text: str) -> Image.Image:
    """Put a line of text below ``image``, in few colours."""
    framed = Image.new("RGB", (image.width, image.height + _BAR_PX), (20, 20, 24))
    framed.paste(image, (0, 0))
    font = ImageFont.load_default()
    ImageDraw.Draw(framed).text((4, image.height + 3), text, fill=(240, 240, 240), font=font)
    return framed.quantize(_COLOURS)

"""Makes Atari games by names like ``ALE/Pong-v5``: one action every 4 frames, 64x64 RGB images.

ale-py (the extra ``atari``) brings the games along; nothing is downloaded.

Source: Machado et al. 2018, arXiv:1709.06009, for the protocol; Mnih et al. 2015 for no-ops, frame
    skip and the maximum over two frames.
Deviates: no frames are stacked, because our models have a memory; actions are
    not sticky unless asked for (Atari 100k); the resize is ours, so Gymnasium's
    AtariPreprocessing, which resizes by OpenCV, is not used.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from wm_core.contract.image import area_resize

NAMESPACE = "ALE/"
SKIP = 4  #: frames per decision
NOOPS = 30  #: most frames of no action before the first decision of an episode
FRAMES_HZ = 60


class Game(gymnasium.Wrapper):
    """Turns an Atari game into a task.

    Args:
        env: the game itself, one frame per step, RGB or gray.
        image_size: height and width in pixels that the whole frame is resized to.
        life_loss: whether losing a life terminates the episode, and with it the game.
    """

    def __init__(self, env: gymnasium.Env, *, image_size: int, life_loss: bool) -> None:
        super().__init__(env)
        self._size, self._life_loss, self._lives = image_size, life_loss, 0
        channels = 3 if env.observation_space.shape[2:] else 1  # type: ignore[index]
        self.observation_space = spaces.Box(0, 255, (image_size, image_size, channels), np.uint8)
        self.metadata = {
            **env.metadata,
            "render_fps": FRAMES_HZ / SKIP,
            "action_names": tuple(env.unwrapped.get_action_meanings()),  # type: ignore[attr-defined]
        }

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin a game and idle for 1 .. ``NOOPS`` frames; returns (size, size, C) uint8, info."""
        frame, info = self.env.reset(seed=seed, options=options)
        for _ in range(self.env.unwrapped.np_random.integers(NOOPS) + 1):
            frame, _, terminated, truncated, info = self.env.step(0)
            if terminated or truncated:
                frame, info = self.env.reset()
        self._lives = info["lives"]
        return self._resized(frame), info

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Repeat ``action`` for ``SKIP`` frames.

        The image (size, size, C) uint8 is the brighter of the last two frames, pixel by pixel.
        """
        total, frames = 0.0, list[np.ndarray]()
        for _ in range(SKIP):
            frame, reward, terminated, truncated, info = self.env.step(action)
            total, frames = total + float(reward), [*frames[-1:], frame]
            terminated |= self._life_loss and info["lives"] < self._lives
            if terminated or truncated:
                break
        self._lives = info["lives"]
        return self._resized(np.max(frames, axis=0)), total, terminated, truncated, info

    def _resized(self, frame: np.ndarray) -> np.ndarray:
        """Resize a whole frame (210, 160) or (210, 160, 3) to (size, size, C) uint8."""
        return area_resize(frame.reshape(*frame.shape[:2], -1), self._size, self._size)


def make_game(
    name: str,
    *,
    image_size: int = 64,
    gray: bool = False,
    life_loss: bool = False,
    sticky: float = 0.0,
    **kwargs: Any,
) -> gymnasium.Env:
    """Make the game ``name``, such as ALE/Pong-v5.

    Args:
        name: as ale-py registers it.
        image_size: height and width of the image in pixels.
        gray: one channel instead of RGB.
        life_loss: whether losing a life terminates the episode.
        sticky: probability of repeating the last action in a frame; 0.25 is the protocol's.
        kwargs: further arguments of the game, such as ``full_action_space``.
    """
    ale: Any = importlib.import_module("ale_py")
    ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # no banner
    game = gymnasium.make(
        name,
        disable_env_checker=True,
        obs_type="grayscale" if gray else "rgb",
        frameskip=1,  # the skipping is ours
        repeat_action_probability=sticky,
        **kwargs,
    )
    return Game(game, image_size=image_size, life_loss=life_loss)

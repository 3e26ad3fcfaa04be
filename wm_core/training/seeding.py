"""Makes independent random generators from one seed; no global one is used.

Every part draws from its own generator, so that a new draw in one place does not change the
others, and so that a checkpoint can hold each stream's exact position.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch

#: Order matters: a stream's seed depends on its place here, so append only.
STREAMS = ("init", "sampler", "learner", "actor", "env", "explore")
_TORCH, _NUMPY = ("learner", "actor"), ("sampler", "env", "explore")  #: kept in checkpoints


class Streams:
    """Holds the random generators of one run by name.

    Args:
        seed: any non-negative integer; equal seeds give equal streams.
        device: where the learner's and the actor's torch generators live.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        children = np.random.SeedSequence(seed).spawn(len(STREAMS))
        words = {
            name: int(child.generate_state(1, np.uint64)[0] >> np.uint64(1))
            for name, child in zip(STREAMS, children, strict=True)
        }
        self.init = torch.Generator().manual_seed(words["init"])
        self.sampler = np.random.default_rng(words["sampler"])
        self.learner = torch.Generator(device).manual_seed(words["learner"])
        self.actor = torch.Generator(device).manual_seed(words["actor"])
        self.env = np.random.default_rng(words["env"])
        self.explore = np.random.default_rng(words["explore"])

    def state(self) -> dict[str, Any]:
        """Give the position of every stream in plain containers and tensors."""
        positions = {name: getattr(self, name).get_state() for name in _TORCH}
        return positions | {n: dict(getattr(self, n).bit_generator.state) for n in _NUMPY}

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue exactly where ``state()`` was taken.

        Torch's generators do so on the same kind of device alone: on another their states have
        another size, and they are seeded from the state that was held.
        """
        for name in _TORCH:
            generator, held = getattr(self, name), state[name].cpu()
            if len(held) == len(generator.get_state()):
                generator.set_state(held)
            else:
                digest = hashlib.sha256(held.numpy().tobytes()).digest()
                generator.manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        for name in _NUMPY:
            getattr(self, name).bit_generator.state = state[name]

"""``wm train`` with a witness: each start writes down the weights from which it goes on.

Called as ``WITNESS OPTIONS...``.  Everything else is the command itself; the witness reads the
learner once, after the checkpoint was loaded and before the first update.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_core.cli.main import main
from wm_core.training.trainer import Trainer


def digest(state: Any) -> str:
    """Hash a state: containers in order, tensors by name, shape and bytes."""
    found = hashlib.sha256()

    def add(value: Any) -> None:
        if isinstance(value, Mapping):
            for key in sorted(value, key=str):
                found.update(f"{key}:".encode())
                add(value[key])
        elif isinstance(value, list | tuple):
            found.update(f"[{len(value)}".encode())
            for item in value:
                add(item)
        elif isinstance(value, torch.Tensor | np.ndarray):
            array = np.asarray(value)
            found.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:
            found.update(repr(value).encode())

    add(state)
    return found.hexdigest()


def watch(witness: Path) -> None:
    """Have every start of a training append what it begins with to ``witness``."""
    train = Trainer.train

    def watched(self: Trainer):
        learner = self.learner
        line = {"updates": learner.updates, "agent": digest(learner.agent.state_dict())}
        with witness.open("a") as file:
            file.write(json.dumps(line) + "\n")
        return train(self)

    Trainer.train = watched


if __name__ == "__main__":
    watch(Path(sys.argv[1]))
    sys.exit(main(sys.argv[2:]))

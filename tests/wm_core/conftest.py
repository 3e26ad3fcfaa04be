"""An agent of any preset, small enough to update in milliseconds, and a batch for it."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch

from wm_core import presets
from wm_core.agents.agent import Agent
from wm_core.config import Config
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.world.latent import TorchBatch

B, T = 4, 6  #: windows of a batch, and their length


def shrink(config: Config, **changes) -> Config:
    """``config`` with every size small, every rate high, and ``changes`` to its parts."""
    values = config.model_dump()
    transformer = {"width": 16, "layers": 2, "heads": 2, "head": 8, "hidden": 32, "window": 8}
    small = {
        "world": {
            "depth": 4, "deter": 32, "hidden": 16, "groups": 4, "classes": 4, "gaussians": 6,
            "units": 32, "bins": 63, "recon_share": 1.0,
            "transformer": values["world"]["transformer"] | transformer,
            "ssm": {"state": 16, "layers": 2, "blocks": 2},
        },
        "behavior": {
            "imag_horizon": 4, "imag_starts": 10,
            "evolution": values["behavior"]["evolution"]
            | {"population": 6, "rollouts": 3, "every": 1},
        },
        "optim": {"precision": "float32", "lr": 2e-3, "warmup": 10, "stages": None},
        "replay": {"batch": B, "length": T},
    }  # fmt: skip
    for part in (small, changes):
        for name, fields in part.items():
            values[name] |= fields
    return Config.model_validate(values)


@dataclass
class Small:
    """A small agent's settings, and all that it takes to let it learn."""

    config: Config
    spec: Spec

    def agent(self, seed: int = 0) -> Agent:
        """The same agent each time."""
        return Agent(self.spec, self.config, generator=torch.Generator().manual_seed(seed))

    def batch(self) -> TorchBatch:
        """(4, 6) random steps; the first window starts anew at 3, the second ends for good."""
        generator, size = torch.Generator().manual_seed(7), self.spec.action.size
        is_first = torch.zeros(B, T, dtype=torch.bool)
        is_first[0, 3] = is_first[1, 5] = True
        action = torch.rand(B, T, size, generator=generator) * 2 - 1
        if self.spec.action.discrete:
            action = torch.eye(size)[action.argmax(-1)]
        obs = {
            k: torch.randint(0, 256, (B, T, *s.shape), generator=generator, dtype=torch.uint8)
            for k, s in self.spec.images.items()
        }
        obs |= {
            k: torch.randn(B, T, s.size, generator=generator) for k, s in self.spec.vectors.items()
        }
        is_last = is_first.roll(-1, 1)
        is_terminal = is_last.clone()
        is_terminal[0] = False
        return TorchBatch(
            obs=obs,
            prev_action=action * ~is_first.unsqueeze(-1),
            reward=torch.rand(B, T, generator=generator) * ~is_first,
            is_first=is_first, is_last=is_last, is_terminal=is_terminal,
        )  # fmt: skip


@pytest.fixture(scope="session")
def small():
    """A function that makes ``Small`` of a preset, for continuous actions or for choices."""

    def make(preset: str, *, discrete: bool = False, vectors: bool = False, **changes) -> Small:
        images = {"image": ImageSpec(height=16, width=16)}
        both = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)
        spec = Spec(
            images=images,
            vectors={"joints": VectorSpec(size=3)} if vectors else {},
            action=ActionSpec.choices(3) if discrete else both,
        )
        return Small(shrink(presets.make(preset, "micro"), **changes), spec)

    return make

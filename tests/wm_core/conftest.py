"""What tests of several rooms share: a small agent, steps, chunks, a store of tagged steps."""

from __future__ import annotations

import contextlib
import hashlib
import os
import subprocess
import time
from dataclasses import dataclass
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import torch

from tests.wm_core.stored import LEARNABLE, store_chunk
from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.batch import Batch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.format.chunk import ChunkKey, ChunkMeta, encode_chunk
from wm_core.nn.dists import OneHot
from wm_core.presets.micro import merged
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store
from wm_core.training import checkpoint

B, T = 4, 6  #: windows of a batch, and their length


def shrink(config: Config, **changes) -> Config:
    """``config`` with every size small, every rate high, and ``changes`` to its parts."""
    values = config.model_dump()
    transformer = {"width": 16, "layers": 2, "heads": 2, "head": 8, "hidden": 32, "window": 8}
    small = {
        "world": {
            "units": 32, "encoder": {"depth": 4}, "heads": {"bins": 63}, "recon": {"share": 1.0},
            "categorical": {"groups": 4, "classes": 4}, "gaussian": {"size": 6},
            "posterior": {"units": 16}, "net": {"units": 16},
            "gru": {"deter": 32, "hidden": 16}, "lstm": {"deter": 32, "hidden": 16},
            "ssm": {"deter": 32, "state": 16, "layers": 2, "blocks": 2},
            "transformer": transformer,
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
        values = merged(values, part)
    return Config.model_validate(values)


@dataclass
class Small:
    """A small agent's settings, and all that it takes to let it learn."""

    config: Config
    spec: Spec

    def agent(self, seed: int = 0) -> AgentCore:
        """The same agent each time."""
        return AgentCore(self.spec, self.config, generator=torch.Generator().manual_seed(seed))

    def batch(self) -> Batch[torch.Tensor]:
        """(4, 6) random steps; the first window starts anew at 3, the second ends for good."""
        generator, size = torch.Generator().manual_seed(7), self.spec.action.size
        is_first = torch.zeros(B, T, dtype=torch.bool)
        is_first[0, 3] = is_first[1, 5] = True
        action = torch.rand(B, T, size, generator=generator) * 2 - 1
        if self.spec.action.discrete:
            action = OneHot(action, self.spec.action.groups).mode
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
        return Batch(
            obs=obs,
            prev_action=action * ~is_first.unsqueeze(-1),
            reward=torch.rand(B, T, generator=generator) * ~is_first,
            is_first=is_first, is_last=is_last, is_terminal=is_terminal,
        )  # fmt: skip


@pytest.fixture(scope="session")
def small():
    """A function that makes ``Small`` of a preset, for continuous actions or for choices.

    ``groups``: two or more choices at once.
    """

    def make(
        preset: str,
        *,
        discrete: bool = False,
        groups: tuple[int, ...] = (),
        vectors: bool = False,
        **changes,
    ) -> Small:
        images = {"image": ImageSpec(height=16, width=16)}
        both = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)
        spec = Spec(
            images=images,
            vectors={"joints": VectorSpec(size=3)} if vectors else {},
            action=ActionSpec.choices(3) if discrete else both,
        )
        if groups:
            action = ActionSpec.several_choices(groups)
            spec = spec.model_copy(update={"action": action})
        return Small(shrink(presets.make(preset, "micro"), **changes), spec)

    return make


# ------------------------------------------------------------------ steps and chunks


@pytest.fixture
def spec():
    images = {"image": ImageSpec(height=8, width=8)}
    return Spec(images=images, action=ActionSpec(low=(-1.0,), high=(1.0,)))


@pytest.fixture
def make_step(spec):
    """A step whose reward is its own number."""

    def make(number, **changes):
        rng = np.random.default_rng(number)
        fields = {
            "obs": {"image": rng.integers(0, 256, (8, 8, 3), np.uint8)},
            "action": np.zeros(1, np.float32),
            "reward": float(number),
            "is_first": number == 0,
            "is_last": False,
            "is_terminal": False,
            "stamp_ns": 10**9 + number,
        }
        return Step(**fields | changes)

    return make


@pytest.fixture
def make_chunk(spec, make_step):
    """(key, data, sha256) of a chunk; ``salt`` makes other bytes under the same key."""

    def make(seq=0, *, robot="rover", session=None, steps=3, salt=0):
        key = ChunkKey(robot, session or uuid4().hex, seq)
        meta = ChunkMeta(
            robot=key.robot,
            session=key.session,
            seq=seq,
            spec=spec,
            first_step=seq * steps,
            steps=steps,
            dropped={"salt": salt},
        )
        data = encode_chunk([make_step(seq * steps + i) for i in range(steps)], meta)
        return key, data, hashlib.sha256(data).hexdigest()

    return make


@pytest.fixture
def wait_until():
    """Waits for a condition with a deadline."""

    def wait(condition, timeout_s=120.0):
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline_s, "the condition did not come true in time"
            time.sleep(0.01)

    return wait


# ------------------------------------------------------------------ a store

TAGGED_SPEC = Spec(
    images={
        "image": ImageSpec(height=4, width=6),
        "wrist": ImageSpec(height=3, width=3, channels=1),
    },
    vectors={"proprio": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0)),
)


@pytest.fixture
def leave_checkpoint(small):
    """Leaves in a run folder the checkpoint of a small agent that looks at ``LEARNABLE``."""

    def leave(run, updates, preset="dreamer_v3", **changes):
        parts = small(preset, **changes)
        parts.spec = LEARNABLE
        state = {
            "config": parts.config.model_dump(mode="json"),
            "spec": parts.spec.model_dump(mode="json"),
            "task": "tag", "agent_steps": 100,
            "learner": {"agent": parts.agent(seed=updates).state_dict(), "updates": updates},
        }  # fmt: skip
        checkpoint.save(run, state, updates=updates, keep=3)

    return leave


@pytest.fixture
def small_disk(tmp_path):
    """A context manager that mounts a disk of that size, such as 128k, and gives its folder."""

    @contextlib.contextmanager
    def mounted(size):
        folder = tmp_path / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
        if os.geteuid() or subprocess.run(mount, check=False, capture_output=True).returncode:
            pytest.skip("needs the right to mount a small tmpfs")
        try:
            yield folder
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)

    return mounted


def tagged_step(number, *, episode, invalid):
    """A step that says ``number`` wherever it can; episodes begin at multiples of ``episode``."""
    image = np.zeros((4, 6, 3), np.uint8)
    image[:] = (number % 256, number // 256, 7)
    return Step(
        obs={
            "image": image,
            "wrist": np.full((3, 3, 1), number % 251, np.uint8),
            "proprio": np.array([number, -number], np.float32),
        },
        action=np.array([number, -number], np.float32) / 65536,
        reward=float(number),
        is_first=number % episode == 0,
        is_last=number % episode == episode - 1,
        is_terminal=number % (2 * episode) == episode - 1,
        is_valid=number not in invalid,
        # not in every step, so that a block holds steps of two sizes
        requested_action=np.zeros(2, np.float32) if number % 5 == 0 else None,
        policy_version=number,
        stamp_ns=1_000_000_000 + number * 50_000_000,
    )


@pytest.fixture
def tagged(tmp_path):
    """Write chunks of tagged steps: ``tagged.write(seq, first_step, steps)``, then ``.open()``."""
    root = tmp_path / "store"
    ledger = Ledger(root / LEDGER_NAME)
    stores = []

    def write(
        seq, first, count=20, *, session=0, invalid=(), episode=1000, spec=TAGGED_SPEC, edit=None
    ):
        steps = [
            tagged_step(n, episode=episode, invalid=invalid) for n in range(first, first + count)
        ]
        steps = [edit(step) for step in steps] if edit else steps
        key = ChunkKey("robot", f"{session:032x}", seq)
        return store_chunk(root, ledger, key, steps, spec, first_step=first)

    def fill(chunks, *, count=20, **kwargs):
        return [write(seq, seq * count, count, **kwargs) for seq in range(chunks)]

    def open_store(cache_bytes=10**7, spec=None):
        store = Store(root, cache_bytes=cache_bytes, spec=spec, keep_indices=True)
        stores.append(store)
        store.refresh()
        return store

    yield SimpleNamespace(
        root=root, ledger=ledger, write=write, fill=fill, open=open_store, spec=TAGGED_SPEC
    )
    for store in stores:
        store.close()
    ledger.close()

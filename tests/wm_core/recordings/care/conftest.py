"""A store of a moving dot, whose faults a test chooses."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from tests.wm_core.stored import store_chunk
from wm_core.cli.main import main
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.contract.step import Step, is_usable
from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.store.ledger import LEDGER_NAME, Ledger

SPEC = Spec(
    images={"image": ImageSpec(height=16, width=16)},
    vectors={"joints": VectorSpec(size=2)},
    action=ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2),
)
BEGIN_NS = 1_790_000_000_000_000_000  #: 21 September 2026
PERIOD_NS = 50_000_000
SESSION = hashlib.sha256(b"session").hexdigest()[:32]


def dot(x: float, y: float) -> np.ndarray:
    """An image (16, 16, 3) with a bright square at (x, y) in -1 .. 1, on grey."""
    image = np.full((16, 16, 3), 90, np.uint8)
    column, row = (round((value + 1) * 6) for value in (x, y))
    image[row : row + 4, column : column + 4] = 255
    return image


def play(episodes=2, length=50, *, seed=0, terminal=False, version=3) -> list[Step]:
    """Steps of a dot that a random walk drives; a step's reward grows to the right."""
    rng, steps = np.random.default_rng(seed), []
    for _ in range(episodes):
        place = rng.uniform(-0.8, 0.8, 2)
        for t in range(length):
            action = rng.uniform(-0.9, 0.9, 2).astype(np.float32)
            steps.append(
                Step(
                    obs={"image": dot(*place), "joints": place.astype(np.float32)},
                    action=action,
                    reward=0.0 if t == 0 else round(float(place[0]), 3),
                    is_first=t == 0,
                    is_last=t == length - 1,
                    is_terminal=terminal and t == length - 1,
                    policy_version=version,
                    stamp_ns=BEGIN_NS + len(steps) * PERIOD_NS,
                )
            )
            place = np.clip(place + 0.3 * action, -1, 1)
    return steps


def changed(steps, at, **fields):
    """``steps`` with ``fields`` of those at ``at`` replaced; a function is given the old step."""
    out = list(steps)
    for i in at:
        values = {k: v(out[i]) if callable(v) else v for k, v in fields.items()}
        obs = values.pop("obs", None)
        step = replace(out[i], **values)
        if obs is not None:
            step = replace(step, obs=step.obs | obs)
        out[i] = replace(step, is_valid=is_usable(step, SPEC))
    return out


@pytest.fixture
def run(tmp_path):
    return tmp_path / "run"


@pytest.fixture
def root(run):
    return run / "store"


@pytest.fixture
def record(root):
    """Stores steps as chunks of one session; gives the keys."""

    def store(steps, *, robot="rover", session=SESSION, size=16, task="dot", spec=SPEC, to=root,
              first_seq=0, first_step=0, dropped=None):  # fmt: skip
        ledger, keys = Ledger(to / LEDGER_NAME), []
        for begin in range(0, len(steps), size):
            part = steps[begin : begin + size]
            key = ChunkKey(robot, session, first_seq + len(keys))
            last = begin + size >= len(steps)
            store_chunk(
                to, ledger, key, part, spec, first_step=first_step + begin, task=task,
                dropped=dropped or {} if last else {},
            )  # fmt: skip
            keys.append(key)
        ledger.close()
        return keys

    return store


@pytest.fixture
def wm(run, capsys):
    """Runs ``wm data VERB --root RUN ...``: its status, and what it printed."""

    def call(verb, *words, root=None):
        words = [str(word) for word in words]
        status = main(["data", verb, "--root", str(run if root is None else root), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


@pytest.fixture
def wm_json(wm):
    """The same with ``--json``: its status, and the objects that it printed, one a line."""

    def call(verb, *words, **options):
        status, out, err = wm(verb, *words, "--json", **options)
        assert status < 2, err
        return status, [json.loads(line) for line in out.splitlines()]

    return call


@pytest.fixture
def file_of(root):
    return lambda key: chunk_path(root, key)

"""Stores steps as a chunk, as a robot would, for tests of what is made of stores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from wm_core.contract.spec import ActionSpec, ImageSpec, Spec
from wm_core.format.chunk import ChunkKey, ChunkMeta, chunk_path, encode_chunk
from wm_core.store.ingest import ingest
from wm_core.store.ledger import Ledger

SIDE = 16
#: of tagged steps whose cameras an encoder takes
LEARNABLE = Spec(
    images={name: ImageSpec(height=SIDE, width=SIDE) for name in ("image", "wrist")},
    action=ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2, names=("left", "right")),
)


def learnable(step):
    """A tagged step as one of ``LEARNABLE``."""
    colour = step.obs["image"][0, 0]
    return replace(step, obs={name: np.tile(colour, (SIDE, SIDE, 1)) for name in LEARNABLE.images})


def store_chunk(root, ledger: Ledger, key: ChunkKey, steps, spec, *, first_step, **meta) -> Path:
    """Store ``steps`` under ``key``, with ``meta`` in its ``ChunkMeta``; gives the file."""
    said = ChunkMeta(**key._asdict(), spec=spec, first_step=first_step, steps=len(steps), **meta)
    verdict = ingest(root, ledger, key, encode_chunk(steps, said))
    assert verdict.kind == "stored", verdict
    return chunk_path(root, key)

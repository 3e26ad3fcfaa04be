"""One agent of which the backbone and the latents alone are exchanged: the grid of ``backbones``.

What a cell exchanges stands here; everything else is ``SAME`` and, behind it, ``dreamer_v3`` in
size micro: encoder, decoder, heads, losses, entropy, actor, critic, dreams, optimiser, updates per
step and seeds.  All windows begin without a past, because a transformer's carry is too large to be
remembered for every step.  The backbones' own layers are of one size (0.39 to 0.40 million
weights), and all agents' weights lie within a tenth of one another.

``rssm`` and ``gru`` have the same cell; what differs is that the posterior of the first reads the
past.  So the first against the second says what such a posterior is worth, and the second against
the others what the backbone is worth.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from wm_core.contract.errors import SettingsError, nearest

PRESET, SIZE = "dreamer_v3", "micro"
Options = Mapping[str, str]

#: options of every cell
SAME: Options = {"replay.batch": "8", "replay.length": "32", "replay.latents": "0"}
#: all have a ``deter`` of 256
BACKBONES: Mapping[str, Options] = {
    "rssm": {"backbone": "gru", "gru.cell": "layer_norm", "gru.deter": "256", "gru.hidden": "256"},
    "gru": {"backbone": "token_gru", "token-gru.deter": "256", "token-gru.hidden": "256"},
    "transformer": {
        "backbone": "transformer", "transformer.width": "256", "transformer.layers": "2",
        "transformer.heads": "4", "transformer.head": "32", "transformer.hidden": "128",
        "transformer.window": "32",
    },
    "ssm": {
        "backbone": "ssm", "ssm.deter": "256", "ssm.state": "64", "ssm.layers": "2",
        "ssm.blocks": "4",
    },
}  # fmt: skip
LATENTS: Mapping[str, Options] = {
    "categorical": {
        "latent": "categorical", "categorical.groups": "16", "categorical.classes": "8",
    },
    "gaussian": {"latent": "gaussian", "gaussian.size": "96"},
}  # fmt: skip
TASKS = ("seek", "recall-6")
_RECALL = re.compile(r"recall-(\d+)")


class Cell(NamedTuple):
    """One backbone with one family of latents."""

    backbone: str
    latent: str

    @property
    def name(self) -> str:
        return f"{self.backbone}-{self.latent}"

    @property
    def options(self) -> dict[str, str]:
        """Options of ``wm train`` that make the cell's agent, by their dotted names."""
        chosen = {**BACKBONES[self.backbone], **LATENTS[self.latent]}
        return {**SAME, **{f"world.{name}": value for name, value in chosen.items()}}


CELLS = {cell.name: cell for cell in (Cell(b, z) for z in LATENTS for b in BACKBONES)}


def place_of(name: str) -> tuple[str, dict[str, str]]:
    """The task and the options of its environment of one of the grid's tasks.

    Args:
        name: seek, or recall-N: N control steps between colour and go.
    """
    if name == "seek":
        return "seek", {}
    found = _RECALL.fullmatch(name)
    if found is None:
        raise SettingsError(nearest(name, TASKS, what="task of the grid") + "; recall-N: N steps")
    return "recall", {"env.kwargs": f"delay={int(found[1])}"}

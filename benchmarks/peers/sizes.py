"""The networks and batches that every contestant is measured with."""

from __future__ import annotations

from typing import NamedTuple

ACTION_SIZE = 6
HORIZON = 15


class Size(NamedTuple):
    """A network and its batch, in numbers that every DreamerV3 has."""

    ours: str  #: the size's name in ``wm bench learner``
    depth: int  #: channels of the first convolution
    units: int  #: width of every layer, and hidden size of the recurrent model
    deter: int
    groups: int
    classes: int
    layers: int  #: of every head
    batch: int
    length: int


SIZES = {
    "full": Size("base", 32, 512, 512, 32, 32, 2, 16, 64),
    "micro": Size("micro", 8, 128, 256, 16, 16, 3, 16, 16),
}

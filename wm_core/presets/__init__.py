"""Presets name the systems that can be trained; each is a value of ``Config``, never a class.

``paper`` is the size of the paper or of the authors' code, ``micro`` one for two CPU cores.
``docs/algorithms`` has a page for each with the source of every number and what deviates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from wm_core.config import Config
from wm_core.contract.errors import SettingsError, nearest
from wm_core.presets.recurrent import (
    V3_SIZES,
    daydreamer,
    dreamer_v1,
    dreamer_v2,
    dreamer_v3,
    r2dreamer,
)
from wm_core.presets.sequence import awm, s4wm, transdreamer, twm, world_models

_ALL = (
    world_models, dreamer_v1, dreamer_v2, dreamer_v3, transdreamer, twm, awm, daydreamer, s4wm,
    r2dreamer,
)  # fmt: skip
PRESETS: dict[str, Callable[[str], Config]] = {preset.__name__: preset for preset in _ALL}
_FAMILY = ("dreamer_v3", "r2dreamer")  #: presets that have V3's sizes too
SIZES = ("micro", "paper", *V3_SIZES)


def sizes_of(preset: str) -> tuple[str, ...]:
    """The sizes that ``preset`` comes in."""
    return SIZES if preset in _FAMILY else ("micro", "paper")


def make(preset: str, size: str) -> Config:
    """The settings of ``preset`` at ``size``; raises ``SettingsError`` naming the nearest."""
    if preset not in PRESETS:
        raise SettingsError(nearest(preset, PRESETS, what="preset"))
    if size not in sizes_of(preset):
        raise SettingsError(nearest(size, sizes_of(preset), what=f"size of {preset}"))
    return PRESETS[preset](size)


class PresetRow(NamedTuple):
    """The six choices that make up a system, and how it is trained."""

    representation: str
    latent: str
    backbone: str
    posterior: str
    behavior: str
    reads: str  #: what of the latent the actor reads
    training: str


def row_of(config: Config) -> PresetRow:
    """The parts of ``config`` in a few words each."""
    world, behavior = config.world, config.behavior

    def named(part: str) -> str:
        settings = world.settings_of(part)
        return f"{part} {settings.about.format(**settings.model_dump())}".strip()

    learner = "CMA-ES" if behavior.learner == "evolution" else behavior.gradient
    training = f"{world.gradients}, {config.optim.kind}"
    return PresetRow(
        representation=world.objective,
        latent=named(world.latent) + (f", {world.prior} prior" if world.prior != "net" else ""),
        backbone=named(world.backbone),
        posterior="q(z|h,e)" if world.recurrent else "q(z|e)",
        behavior=learner,
        reads=behavior.reads,
        training=training + (", stages" if config.optim.stages else ""),
    )

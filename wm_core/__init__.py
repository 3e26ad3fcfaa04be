"""World models that learn from a robot's camera: the names to begin with.

Names are imported when they are first used, so that the robot's side never imports torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wm_core import presets
    from wm_core.behavior.settings import BEHAVIORS
    from wm_core.config import Config
    from wm_core.contract.batch import Batch
    from wm_core.contract.engine import PolicyEngine
    from wm_core.contract.errors import SettingsError, SpecMismatch, StoreError, WmError
    from wm_core.contract.inputs import RGB, Depth, Input, Mono, Vector, register_input
    from wm_core.contract.runner import PolicyRunner
    from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
    from wm_core.library.adopt import adopt
    from wm_core.library.agent import Agent, open_loop
    from wm_core.library.collect import collect
    from wm_core.library.describe import describe
    from wm_core.library.evaluate import evaluate, evaluate_runs
    from wm_core.library.export import export
    from wm_core.library.show import show
    from wm_core.library.train import train
    from wm_core.replay.episodes import Episodes
    from wm_core.replay.settings import SELECTORS
    from wm_core.training.tasks import make_env, spec_of
    from wm_core.world.settings import BACKBONES, LATENTS, OBJECTIVES, PRIORS

_HOMES = {
    "wm_core.behavior.settings": ["BEHAVIORS"],
    "wm_core.config": ["Config"],
    "wm_core.contract.batch": ["Batch"],
    "wm_core.contract.engine": ["PolicyEngine"],
    "wm_core.contract.errors": ["SettingsError", "SpecMismatch", "StoreError", "WmError"],
    "wm_core.contract.inputs": ["RGB", "Depth", "Input", "Mono", "Vector", "register_input"],
    "wm_core.contract.runner": ["PolicyRunner"],
    "wm_core.contract.spec": ["ActionSpec", "ImageSpec", "Spec", "VectorSpec"],
    "wm_core.library.adopt": ["adopt"],
    "wm_core.library.agent": ["Agent", "open_loop"],
    "wm_core.library.collect": ["collect"],
    "wm_core.library.describe": ["describe"],
    "wm_core.library.evaluate": ["evaluate", "evaluate_runs"],
    "wm_core.library.export": ["export"],
    "wm_core.library.show": ["show"],
    "wm_core.library.train": ["train"],
    "wm_core.replay.episodes": ["Episodes"],
    "wm_core.replay.settings": ["SELECTORS"],
    "wm_core.training.tasks": ["make_env", "spec_of"],
    "wm_core.world.settings": ["BACKBONES", "LATENTS", "OBJECTIVES", "PRIORS"],
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "BACKBONES",
    "BEHAVIORS",
    "LATENTS",
    "OBJECTIVES",
    "PRIORS",
    "RGB",
    "SELECTORS",
    "ActionSpec",
    "Agent",
    "Batch",
    "Config",
    "Depth",
    "Episodes",
    "ImageSpec",
    "Input",
    "Mono",
    "PolicyEngine",
    "PolicyRunner",
    "SettingsError",
    "Spec",
    "SpecMismatch",
    "StoreError",
    "Vector",
    "VectorSpec",
    "WmError",
    "adopt",
    "collect",
    "describe",
    "evaluate",
    "evaluate_runs",
    "export",
    "make_env",
    "open_loop",
    "presets",
    "register_input",
    "show",
    "spec_of",
    "train",
]


if not TYPE_CHECKING:  # which would take any name for one of ours

    def __getattr__(name: str) -> Any:
        """Import the module that ``name`` is defined in, and return its object."""
        if name == "presets":
            return importlib.import_module("wm_core.presets")
        if name not in _HOME_OF:
            raise AttributeError(f"module 'wm_core' has no attribute {name!r}; see dir(wm_core)")
        return getattr(importlib.import_module(_HOME_OF[name]), name)


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return sorted({*globals(), *__all__})

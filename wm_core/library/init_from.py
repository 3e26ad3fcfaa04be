"""Begins a run with the weights of another: all of them, the world model's, or the encoder's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.behavior.evolution import Evolution
from wm_core.config import Config
from wm_core.contract.compare import differences
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import json_text, write_atomically
from wm_core.contract.spec import Spec
from wm_core.library.run_folder import InitPart, run_id_of
from wm_core.training import checkpoint

NAME = "init_from.json"  #: in the run folder: which tensors were taken, and which were not
#: what the names of a part's tensors begin with
PREFIXES: dict[InitPart, str] = {"all": "", "world": "world.", "encoder": "world.encoder."}
_SHOWN = 3  #: tensors that a sentence names
_SEARCH = "behavior._extra_state"  #: of a behaviour that learns without gradients
_ADAPTED = "behavior.entropy_scale.scale"  #: begins at behavior.entropy.scale
#: the settings that decide the shapes of networks, and how they learn
_BASE = ("preset", "size", "world", "behavior", "optim", "replay")


@dataclass(frozen=True)
class Inherited:
    """What a run took over from another one."""

    checkpoint: Path
    run_id: str
    updates: int  #: behind the weights
    part: InitPart
    taken: tuple[str, ...]  #: names of tensors
    left: Mapping[str, str]  #: tensors that stay as they were drawn, and why
    differences: tuple[str, ...]  #: of the other run's observations and actions
    #: why the search for a controller does not go on with it; empty: it does, or there is none
    new_search: str = ""

    def write(self, run: Path) -> None:
        """Note it in the folder ``run``."""
        about = vars(self) | {"checkpoint": str(self.checkpoint)}
        write_atomically(run / NAME, f"{json_text(about, indent=1)}\n".encode())

    def sentence(self) -> str:
        """Say it in one line."""
        both = len(self.taken) + len(self.left)
        text = f"{len(self.taken)} of {both} tensors are those of {self.checkpoint}"
        if self.left:
            some = [f"{name} ({why})" for name, why in list(self.left.items())[:_SHOWN]]
            more = f" and {len(self.left) - _SHOWN} more" if len(self.left) > _SHOWN else ""
            text += f"; as they were drawn stay {', '.join(some)}{more}"
        if self.new_search:
            text += f"; a new search begins at its controller ({self.new_search})"
        if self.differences:
            text += f"; the other run had {'; '.join(self.differences)}"
        return text


def origin_of(text: str) -> tuple[Path, str]:
    """Split ``RUN@VERSION`` into the run folder and best, newest or a number of updates."""
    run, at, version = text.rpartition("@")
    if at and run and not Path(text).exists():
        return Path(run), version
    return Path(text), "newest"


def base_settings(text: str) -> dict[str, Any]:
    """The settings of the run ``text`` that decide which weights there are.

    Raises:
        StoreError: where there is no such run or checkpoint.
    """
    run, version = origin_of(text)
    config = Config.model_validate(checkpoint.find(run, version)[1]["config"])
    replay = config.replay.model_copy(update={"demonstrations": None})  # which may lie elsewhere
    env = {"image_size": config.env.image_size, "fit": config.env.fit}  # which the encoder is for
    return {name: getattr(config, name) for name in _BASE} | {"env": env, "replay": replay}


def take_weights(agent: AgentCore, text: str, part: InitPart) -> Inherited:
    """Give ``agent`` the weights of another run, as far as name and shape are the same.

    Args:
        agent: whose weights were drawn just now; its optimisers stay as new.
        text: the run, as RUN, RUN@best, RUN@newest or RUN@UPDATES.
        part: all, world, or encoder.

    Raises:
        StoreError: where there is no such run or checkpoint.
        SettingsError: where not a single tensor fits.
    """
    run, version = origin_of(text)
    path, state = checkpoint.find(run, version)
    held, own = _tensors(state["learner"]["agent"]), _tensors(agent.state_dict())
    taken: dict[str, Tensor] = {}
    left: dict[str, str] = {}
    for name, tensor in own.items():
        if not name.startswith(PREFIXES[part]):
            continue
        other = held.get(name)
        if other is None:
            left[name] = "not there"
        elif other.shape != tensor.shape:
            left[name] = f"{tuple(other.shape)} there, {tuple(tensor.shape)} here"
        elif name == _ADAPTED and (why := _differs(agent, state, "entropy", "scale")):
            left[name] = why
        else:
            taken[name] = other
    if not taken:
        raise SettingsError(
            f"--init-from {text}: no tensor of {part} fits this run; train it with the preset, "
            "size and --world settings of the other run"
        )
    weights: dict[str, Any] = dict(taken)
    search, new_search = state["learner"]["agent"].get(_SEARCH), ""
    if part == "all" and search is not None:
        new_search = _why_new_search(agent, state, left)
        if not new_search:
            weights[_SEARCH] = search
    agent.load_state_dict(weights, strict=False)
    if not isinstance(agent.behavior, Evolution):
        new_search = ""
    elif new_search:
        agent.behavior.begin_search()
    return Inherited(
        checkpoint=path,
        run_id=run_id_of(run),
        updates=int(state["learner"]["updates"]),
        part=part,
        taken=tuple(taken),
        left=left,
        differences=tuple(differences(agent.spec, Spec.model_validate(state["spec"]))),
        new_search=new_search,
    )


def _why_new_search(agent: AgentCore, state: Mapping[str, Any], left: Mapping[str, str]) -> str:
    """Say why the search of the run ``state`` cannot go on in ``agent``; empty where it can.

    Args:
        agent: of the new run.
        state: checkpoint of the other run.
        left: tensors that stay as they were drawn.
    """
    if left:
        return "not every tensor is taken"
    return _differs(agent, state, "evolution", "population", "sigma")


def _differs(agent: AgentCore, state: Mapping[str, Any], group: str, *names: str) -> str:
    """Say which of the settings of ``behavior.group`` is another one in the run ``state``."""
    before = getattr(Config.model_validate(state["config"]).behavior, group)
    now = getattr(agent.config.behavior, group)
    for name in names:
        there, here = getattr(before, name), getattr(now, name)
        if there != here:
            return f"behavior.{group}.{name} is {there:g} there, {here:g} here"
    return ""


def _tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}

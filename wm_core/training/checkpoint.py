"""Saves and loads checkpoints, from which a run continues as if it had never stopped.

A checkpoint is one file of tensors and plain containers, read with ``weights_only=True``, so that
a file from elsewhere cannot run code.  It appears in one piece: after a kill there is the old one
or the new one, never half of either.
"""

from __future__ import annotations

import contextlib
import pickle
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.errors import SettingsError, StoreError, nearest
from wm_core.contract.files import remove_unfinished, replaced_file, siblings
from wm_core.contract.spec import Spec
from wm_core.store.disk import insist
from wm_core.training.schedule import Every

FORMAT = 2
BEST = "best"  #: name of the checkpoint whose evaluation was best
#: options that make a run take less of the disk
KEEP_LESS = "--train.keep-checkpoints, --train.checkpoint-latents-bytes, --replay.store-max-bytes"
CHEAP_SHARE = 0.05  #: of the time that may go into checkpoints before publishing
_NAME = re.compile(r"^(\d{9})\.pt$")
_ARRAY = "__array__"
#: what torch.load raises for files that are damaged or no checkpoints
_UNREADABLE = OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError


def folder_of(run: Path) -> Path:
    """Give the folder of the checkpoints of ``run``."""
    return run / "checkpoints"


def path_of(run: Path, updates: int) -> Path:
    """Give the place of the checkpoint after ``updates``, whether it exists or not."""
    return folder_of(run) / f"{updates:09d}.pt"


def listed(run: Path) -> list[Path]:
    """List the checkpoints of ``run``, oldest first."""
    return sorted(p for p in folder_of(run).glob("*.pt") if _NAME.match(p.name))


def save(run: Path, state: dict[str, Any], *, updates: int, keep: int) -> Path:
    """Write ``state`` durably as the checkpoint of ``updates``; returns its path.

    Args:
        run: the run folder.
        state: tensors, numbers, strings and containers of them.
        updates: gradient updates so far; names the file.
        keep: how many checkpoints remain, this one included.

    Raises:
        DiskFailed: where the disk does not take it after a few tries; nothing of it stays, and
            the earlier checkpoints are as they were.
    """
    path = path_of(run, updates)

    def write() -> None:
        remove_unfinished(path.parent, "*")  # of a killed process: they may be what fills the disk
        with replaced_file(path) as file:
            torch.save({"format": FORMAT} | state, file)

    insist(write, path, needed=_bytes_of(state), less=KEEP_LESS)
    for old in listed(run)[:-keep]:
        with contextlib.suppress(OSError):
            old.unlink(missing_ok=True)
    return path


def _bytes_of(value: Any) -> int:
    """Sum the bytes of the tensors in ``value``, which are nearly all of a checkpoint."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes_of, value.values()))
    return sum(map(_bytes_of, value)) if isinstance(value, list | tuple) else 0


class CheckpointWriter:
    """Writes the checkpoints of a run, and says when the next one is due and whether it is cheap.

    Args:
        run: the run folder.
        keep: how many checkpoints remain.
        every_s: seconds between two.
    """

    def __init__(self, run: Path, *, keep: int, every_s: float) -> None:
        self._run, self._keep = run, keep
        self._every, self._cost_s = Every(every_s, time.monotonic()), 0.0
        self.updates: int | None = None  #: in the newest; None where this run has none yet
        self.agent_steps = 0  #: in the newest

    def due(self) -> bool:
        """Whether the newest is older than ``every_s``."""
        return self._every.due(time.monotonic())

    def is_cheap(self) -> bool:
        """Whether writing one takes little of the time since the last one."""
        return self._cost_s <= CHEAP_SHARE * (time.monotonic() - self._every.last)

    def save(self, state: dict[str, Any], *, updates: int, agent_steps: int) -> None:
        """Write ``state`` durably."""
        begin_s = time.monotonic()
        save(self._run, state, updates=updates, keep=self._keep)
        self._every.done(time.monotonic())
        self._cost_s = self._every.last - begin_s
        self.resume(updates, agent_steps)

    def resume(self, updates: int, agent_steps: int) -> None:
        """Take the checkpoint of ``updates`` as the newest."""
        self.updates, self.agent_steps = updates, agent_steps


def load(path: Path, *, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Load the state in the checkpoint at ``path``, its tensors on ``device``.

    Raises:
        StoreError: for a file that is not a checkpoint of this format.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise StoreError(f"{path}: not a readable checkpoint ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        got = state.get("format") if isinstance(state, dict) else type(state).__name__
        raise StoreError(f"{path}: expected checkpoint format {FORMAT}, got {got}")
    return state


def spec_in(path: Path) -> Spec:
    """Read what the agent in the checkpoint at ``path`` sees and does, and none of its weights.

    Raises:
        StoreError: for a file that is not a checkpoint.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        return Spec.model_validate(state["spec"])
    except (*_UNREADABLE, TypeError) as error:
        raise StoreError(f"{path}: expected a checkpoint: {error}") from error


def newest(run: Path, *, device: str | torch.device = "cpu") -> tuple[Path, dict[str, Any]]:
    """Find the newest checkpoint of ``run`` that can be read, and load its state.

    Raises:
        StoreError: where there is none; the message says what lies there instead.
    """
    if not run.is_dir():
        raise StoreError(nearest(run.name, siblings(run), what="run"))
    errors = []
    for path in reversed(listed(run)):
        try:
            return path, load(path, device=device)
        except StoreError as error:
            errors.append(str(error))
    why = "; ".join(errors) or f"{folder_of(run)} holds none; was this folder made by wm train?"
    raise StoreError(f"no checkpoint to go on from: {why}")


def find(
    run: Path, version: str | int = "newest", *, device: str | torch.device = "cpu"
) -> tuple[Path, dict[str, Any]]:
    """Find a checkpoint of ``run`` by name, and load its state.

    Args:
        run: the run folder.
        version: ``newest``; ``best``, the one whose evaluation had the highest mean return; or
            the number of updates that a kept checkpoint was made after.
        device: of its tensors.

    Raises:
        StoreError: where it is not there; the message says which are.
    """
    if version == "newest":
        return newest(run, device=device)
    if not run.is_dir():
        raise StoreError(nearest(run.name, siblings(run), what="run"))
    name = str(version)
    if name != BEST and not (name.isascii() and name.isdigit()):
        raise SettingsError(
            f"version: expected {BEST}, newest or a number of updates, got {name!r}"
        )
    path = folder_of(run) / f"{BEST}.pt" if name == BEST else path_of(run, int(name))
    if not path.exists():
        kept = ", ".join(str(int(p.stem)) for p in listed(run)) or "none"
        why = " (a run keeps its best once it has been evaluated)" if name == BEST else ""
        raise StoreError(
            f"{run} has no checkpoint {name!r}{why}; kept are those of updates: {kept}"
        )
    return path, load(path, device=device)


@dataclass(frozen=True)
class Trained:
    """An agent as it stands in a checkpoint."""

    agent: AgentCore
    config: Config
    spec: Spec
    task: str
    updates: int
    agent_steps: int
    path: Path  #: of its checkpoint


def load_agent(
    run: Path, device: str | torch.device = "cpu", *, version: str | int = "newest"
) -> Trained:
    """Load the agent in a checkpoint of ``run`` to ``device``; ``version`` as for ``find``.

    Raises:
        StoreError: where there is none, or its weights do not fit its settings.
    """
    path, state = find(run, version)
    return agent_in(state, path, device)


def agent_in(state: dict[str, Any], path: Path, device: str | torch.device = "cpu") -> Trained:
    """Make the agent whose ``state`` was read from ``path``, on ``device``."""
    config, spec = Config.model_validate(state["config"]), Spec.model_validate(state["spec"])
    agent = AgentCore(spec, config, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        agent.load_state_dict(state["learner"]["agent"])
    except (RuntimeError, KeyError) as error:
        raise StoreError(f"{path}: its weights do not fit its settings: {error}") from error
    return Trained(
        agent=agent,
        config=config,
        spec=spec,
        task=str(state["task"]),
        updates=int(state["learner"]["updates"]),
        agent_steps=int(state["agent_steps"]),
        path=path,
    )


def plain(value: Any) -> Any:
    """Replace every array in ``value`` by a tensor or a plain number, for ``save``."""
    if isinstance(value, np.ndarray):
        return {_ARRAY: torch.from_numpy(np.array(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return value


def restored(value: Any) -> Any:
    """Undo ``plain``, except that tuples come back as lists."""
    if isinstance(value, dict):
        if value.keys() == {_ARRAY}:
            return value[_ARRAY].cpu().numpy()
        return {k: restored(v) for k, v in value.items()}
    if isinstance(value, list):
        return [restored(v) for v in value]
    return value

"""The settings of a training run and the folder that keeps them.

A run folder holds settings.json, metrics.jsonl, status.json, tb/, checkpoints/, store/, policies/.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import tyro
from pydantic import Field, ValidationError

from wm_core.config import Config
from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import json_text, read_json, siblings, write_atomically
from wm_core.training.device import Device
from wm_core.training.loggers.base import Axis
from wm_core.training.provenance import commit

SETTINGS_NAME = "settings.json"
InitPart = Literal["all", "world", "encoder"]  #: what a run takes from the one it begins from
_NOT_KEPT = {
    "resume",
    "config_file",
    "profile",
}  #: settings of one start, which the run does not remember


class TrainSettings(Config):
    """Train a world model and a policy.

    In simulation (--task), on the steps that robots stream into a growing store (--store
    --follow), or on a finished store (--store alone).  Ctrl-C leaves a checkpoint; --resume
    continues from it.
    """

    run: Path = Field(description="Run folder: settings, metrics, checkpoints, store, policies")
    task: str = Field(
        "", description="Task: a name from `wm tasks`, a Gymnasium id, or your own as module:Id"
    )
    store: Path | None = Field(
        None, description="Store to learn from, instead of collecting in simulation"
    )
    follow: bool = Field(
        False, description="Robots still write to the store (without --store: to RUN/store)"
    )
    spec: Path | None = Field(
        None, description="Robot file (YAML), or spec as JSON, of what the robot sees and does"
    )
    resume: bool = Field(False, description="Continue from the run folder's newest checkpoint")
    init_from: str = Field(
        "", description="Run to begin from: RUN, RUN@best, RUN@newest or RUN@UPDATES"
    )
    init_part: InitPart = Field(
        "all", description="Weights to take from it: all, world model or encoder"
    )
    init_store: Path | None = Field(
        None, description="Store whose steps the run begins with, copied into RUN/store"
    )
    config_file: Annotated[Path | None, tyro.conf.arg(name="config")] = Field(
        None, description="Settings from a YAML or JSON file, or those that a run folder holds"
    )
    publish: bool = Field(True, description="Export policies to RUN/policies during training")
    policy_keys: Path | None = Field(
        None, description="Folder of `wm keys make` that signs published policies; None: none"
    )
    loggers: tuple[str, ...] = Field(
        ("tensorboard",), description="Loggers of numbers and videos: tensorboard wandb mlflow ..."
    )
    log_axis: Axis = Field(
        "updates", description="Horizontal axis of the loggers: updates or agent_steps"
    )
    device: Device = Field("auto", description="Device of the networks; auto prefers CUDA")
    workers: int = Field(
        1, gt=0, description="Processes that share every update; on GPUs, one for each"
    )
    worker_timeout_s: float = Field(
        120.0, gt=0, description="Most seconds that a worker waits for another in an update"
    )
    threads: int | None = Field(
        None, gt=0, description="CPU threads of torch in each worker; None: all cores but one"
    )
    nice: int = Field(
        0, ge=0, le=19, description="Niceness of the process, 0 .. 19; 19 gives way the most"
    )
    profile: bool = Field(
        False, description="Trace one update into RUN/profile.json.gz, which a browser shows"
    )
    quiet: bool = Field(False, description="Show no progress on the terminal")

    @property
    def config(self) -> Config:
        """What decides the training, without where and how it runs."""
        return Config(**{name: getattr(self, name) for name in Config.model_fields})

    @property
    def publishes(self) -> bool:
        """Whether policies are published: not where none is learnt."""
        return self.publish and self.train.policy != "off"

    @property
    def store_root(self) -> Path:
        return self.store or self.run / "store"


def save_settings(settings: TrainSettings, run_id: str = "") -> str:
    """Write the resolved settings into the run folder; returns the run's id.

    Settings that were there and differ are kept beside them, as settings.1.json and so on.

    Args:
        settings: to be written to ``settings.run``.
        run_id: of a run that has none yet; empty draws one.
    """
    run_id = run_id_of(settings.run) or run_id or uuid.uuid4().hex
    about = {
        "run_id": run_id,
        "commit": commit(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
    }
    path = settings.run / SETTINGS_NAME
    values = settings.model_dump(mode="json", exclude=_NOT_KEPT)
    _keep_older(path, values)
    text = json_text(values | {"about": about}, indent=2)
    write_atomically(path, f"{text}\n".encode())
    return run_id


def _keep_older(path: Path, values: Mapping[str, Any]) -> None:
    """Keep a copy of the settings in ``path`` where ``values`` are others."""
    before = read_json(path)
    alike = {"about", "run"} | _NOT_KEPT  # where a run lies is nothing that it learns by
    if before and {k: v for k, v in before.items() if k not in alike} != {
        k: v for k, v in values.items() if k not in alike
    }:
        number = 1 + len(list(path.parent.glob("settings.*.json")))
        write_atomically(path.with_name(f"settings.{number}.json"), path.read_bytes())


def load_settings(run: Path) -> TrainSettings:
    """Read the settings that ``run`` was made with.

    Raises:
        SettingsError: where the folder does not exist (naming the nearest) or holds none.
    """
    if not run.is_dir():
        raise SettingsError(nearest(run.name, siblings(run), what=f"run in {run.parent}"))
    path = run / SETTINGS_NAME
    try:
        values = json.loads(path.read_text())
        values.pop("about", None)
        return TrainSettings(**values | {"run": run})
    except (OSError, ValueError, ValidationError, AttributeError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise SettingsError(f"{path}: expected the settings of a run: {reason}") from error


def run_id_of(run: Path) -> str:
    """The id that ``run`` got when it began; empty where it has none."""
    about = read_json(run / SETTINGS_NAME).get("about") or {}
    return str(about.get("run_id", ""))

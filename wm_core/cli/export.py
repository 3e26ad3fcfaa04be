"""``wm export``: the newest policy of a run as one ONNX file with its proof beside it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.errors import StoreError
from wm_core.contract.files import write_durably
from wm_core.contract.runner import PolicyRunner
from wm_core.contract.spec import Frozen
from wm_core.exporting.exporter import PolicyExporter, policy_files
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training.checkpoint import Trained, load_agent
from wm_core.training.provenance import commit


class ExportSettings(Frozen):
    """Write a run's newest policy as policy.onnx, with its golden rollout and manifest."""

    run: Path  #: the run folder of `wm train`
    out: Annotated[Path, tyro.conf.arg(aliases=["--to"])]  #: folder to write the policy into
    golden_steps: int = Field(200, gt=0)  #: length of the rollout that proves the file


def main(argv: Sequence[str]) -> int:
    """Export, load the result as a robot would, and say what it is; returns the exit status."""
    settings = parse(ExportSettings, argv, verb="export")
    card = export_run(settings.run, settings.out, golden_steps=settings.golden_steps).card
    reads = ", ".join([*card.spec.images, *card.spec.vectors])
    Console().print(
        f"{settings.out}: version {card.version}, {card.learner_updates} updates, "
        f"{card.agent_steps} agent steps; reads {reads}; "
        f"proved over {settings.golden_steps} steps",
        markup=False,
        highlight=False,
    )
    return 0


def export_run(run: Path, out: Path, *, golden_steps: int) -> PolicyRunner:
    """Write the policy in the newest checkpoint of ``run`` into ``out`` and prove it there.

    Raises:
        StoreError: where the run has no checkpoint or ``out`` cannot be written.
    """
    trained = load_agent(run)
    exporter = PolicyExporter(
        trained.agent,
        trained.spec,
        trained.config,
        run_id=_run_id(run),
        commit=commit(),
        task=trained.task,
    )
    version = _version(run, trained)
    export = exporter.export(version, trained.updates, trained.agent_steps, golden_steps)
    files = policy_files(export, version=version, learner_updates=trained.updates)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            write_durably(out / name, data)
    except OSError as error:
        raise StoreError(f"cannot write the policy to {out}: {error.strerror}") from error
    return PolicyRunner.load(out)


def _version(run: Path, trained: Trained) -> int:
    """The number under which the run published this policy, or would publish it next."""
    last = PolicyRepository(run / "policies").latest()
    if last is None:
        return min(trained.updates, 1)
    return last.version + (last.learner_updates != trained.updates)


def _run_id(run: Path) -> str:
    try:
        about = json.loads((run / "settings.json").read_text()).get("about", {})
    except (OSError, ValueError):
        return ""
    return str(about.get("run_id", ""))

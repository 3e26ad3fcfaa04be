"""``wm export``: write a policy of a run as one ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.settings import parse
from wm_core.contract.spec import Frozen
from wm_core.library.export import export


class ExportSettings(Frozen):
    """Write a run's policy as one ONNX file, and the rollout and hashes it is checked by."""

    run: Path = Field(description="Run folder that `wm train` wrote")
    out: Annotated[Path, tyro.conf.arg(aliases=["--to"])] = Field(
        description="Folder to write the policy into"
    )
    version: str = Field(
        "newest", description="Checkpoint to export: newest, best (by evaluation), or its updates"
    )
    golden_steps: int = Field(
        200, gt=0, description="Steps of the rollout that proves the file, 1 or more"
    )
    int8: bool = Field(
        False, description="Quantise to 8 bits, calibrated on the run's store, if it acts as well"
    )
    leapp: bool = Field(False, description="Write a LEAPP bundle, policy.yaml, beside the policy")
    episodes: int = Field(
        50, gt=1, description="With --int8: episodes of the task that both precisions play at most"
    )
    max_loss: float = Field(
        0.02, gt=0, lt=1, description="With --int8: share of the return that may be lost"
    )


def main(argv: Sequence[str]) -> int:
    """Export, load the result as a robot would, and say what it is; returns the exit status."""
    settings = parse(ExportSettings, argv, verb="export")
    console = Console(soft_wrap=True, highlight=False)
    card = export(
        **settings.model_dump(exclude={"out"}),
        to=settings.out,
        tell=lambda line: console.print(line, markup=False),
    ).card
    reads = ", ".join([*card.spec.images, *card.spec.vectors])
    console.print(
        f"{settings.out}: version {card.version}, {card.learner_updates} updates, "
        f"{card.agent_steps} agent steps; reads {reads}; "
        f"proved over {settings.golden_steps} steps",
        markup=False,
    )
    return 0

"""``wm data label``: give a store rewards, in a new store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, get_args

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.data_care import StoreSettings
from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError, nearest
from wm_core.library.data_label import LabelKind, Labelled, label_store


class DataLabelSettings(StoreSettings):
    """Give a store rewards, in a new store; what is labelled is only read.

    column FORMULA: over the numbers of each step, such as "1 - abs(place[0])" or is_terminal.
    python FILE:FUNCTION: a function reward(obs, action, info) of yours, called for every step.
    marks FILE: a classifier of frames, learnt from a few that you mark (CSV or YAML with episode,
    step and label); it says how it does on marks that were kept from it.
    """

    to: Path = Field(description="Folder of the new store")
    with_: Annotated[tuple[str, str], tyro.conf.arg(name="with", metavar="KIND WHAT")] = Field(
        description="What rewards are made of: column FORMULA, python FILE:FUNCTION, marks FILE"
    )
    threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Marks: probability from which the reward is 1, else 0; None: as it is",
    )
    seed: int = Field(0, description="Seed of the classifier, and of the marks kept from it")


def main(argv: Sequence[str], verb: str) -> int:
    """Label; returns the exit status."""
    settings = parse(DataLabelSettings, argv, verb=f"data {verb}")
    kind, what = settings.with_
    kinds: dict[str, LabelKind] = {name: name for name in get_args(LabelKind)}
    if kind not in kinds:
        raise SettingsError(f"--with: {nearest(kind, kinds, what='kind of label')}")
    of_marks = {"--threshold": settings.threshold is not None, "--seed": settings.seed != 0}
    for option, given in of_marks.items():
        if given and kind != "marks":
            raise SettingsError(f"{option} belongs to --with marks, got --with {kind}")
    console = Console(highlight=False, soft_wrap=True)
    with Console(stderr=True).status("labelling") as status:
        done = label_store(
            settings.root,
            settings.to,
            kinds[kind],
            what,
            threshold=settings.threshold,
            seed=settings.seed,
            tell=lambda text: console.print(text, markup=False),
            on_chunk=lambda row: status.update(f"chunk {row.seq} of {row.robot}"),
        )
    console.print(_said(settings, done), markup=False)
    return 0


def _said(settings: DataLabelSettings, done: Labelled) -> str:
    found = done.found
    text = (
        f"{settings.to}: {found.steps:,} steps of {found.episodes:,} episodes labelled, "
        f"{found.rewarded:,} with a reward other than 0"
    )
    if found.low <= found.high:
        text += f" (from {found.low:.4g} to {found.high:.4g}, sum {found.total:.6g})"
    text += f"; {found.new} new chunks, {found.known} known"
    if found.unknown:
        text += f"; {found.unknown:,} steps without a reward, which are not learnt from"
    if found.begun_late:
        text += (
            "; sessions that begin amid an episode, as the steps before were evicted: "
            f"{found.begun_late} (the episode counts from there, without a step before)"
        )
    if found.left_out:
        counts = ", ".join(f"{n} {why}" for why, n in found.left_out.most_common())
        text += f"; chunks that could not be read: {counts}"
    return f"{text}\ntrain:    wm train --store {settings.to} --run runs/offline"

"""``wm data split``: divide a store into reproducible parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro
from pydantic import Field
from rich.console import Console

from wm_core.cli.data_care import EpisodeOptions
from wm_core.cli.settings import parse
from wm_core.contract.errors import SettingsError
from wm_core.recordings.care.moments import read_moment
from wm_core.recordings.care.part_store import check_places, make_parts
from wm_core.recordings.care.place import explained, reading, store_at
from wm_core.recordings.care.subset import (
    Split,
    SplitRule,
    find_subset,
    read_subset,
    split_store,
    write_subset,
)


class DataSplitSettings(EpisodeOptions):
    """Divide the whole episodes of a store into a train and a validation part.

    The part of an episode follows from the seed and its name alone: the same seed draws the
    same ones on any machine.  --write keeps the choice in a file that names every episode and
    the hash of every chunk; --from makes the same parts again, or says what differs.  --to makes
    a store of each part: TO/train and TO/validation, which `wm train --store` takes.  Filters
    leave out episodes before.
    """

    share: float = Field(
        0.2, gt=0, lt=1, description="Share of the episodes that the seed draws for validation"
    )
    seed: int = Field(
        0, ge=0, description="Seed of the draw; the same one draws the same episodes"
    )
    validate_robots: tuple[str, ...] = Field(
        (), description="Take the episodes of these robots for validation, instead of a draw"
    )
    validate_since: str = Field(
        "", description="Take the episodes since then for validation, instead of a draw"
    )
    write: Path | None = Field(None, description="Subset file (JSON) that receives the choice")
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = Field(
        None, description="Subset file whose parts are made again, instead of a new choice"
    )
    to: Path | None = Field(
        None, description="Folder that receives a store of each part; absent or empty before"
    )


def main(argv: Sequence[str], verb: str) -> int:
    """Split; returns the exit status."""
    settings = parse(DataSplitSettings, argv, verb=f"data {verb}")
    _check(settings)
    root, console = store_at(settings.root), Console(highlight=False, soft_wrap=True)
    with reading(root) as ledger, Console(stderr=True).status("reading") as status:
        if settings.from_ is not None:
            split = find_subset(root, ledger, read_subset(settings.from_))
        else:
            split = split_store(root, ledger, _rule(settings), settings.wanted)
        if settings.to is not None:
            check_places(settings.to, split.parts)  # before the subset file is written
        if settings.write is not None:
            with explained(settings.write):
                write_subset(split.file, settings.write)
        made = []
        if settings.to is not None:
            made = make_parts(
                root, ledger, split.parts, settings.to,
                on_part=lambda place: status.update(f"making {place}"),
            )  # fmt: skip
    _print(console, split)
    for part in made:
        console.print(
            f"{part.root}: {part.steps} steps, {part.linked} chunks linked, {part.copied} copied, "
            f"{part.cut} cut",
            markup=False,
        )
    if settings.write is not None:
        console.print(f"written to {settings.write}", markup=False)
    return 0


def _check(settings: DataSplitSettings) -> None:
    """Refuse options that would do nothing beside others."""
    given = settings.model_dump(exclude_defaults=True).keys()
    if settings.validate_robots and settings.validate_since:
        raise SettingsError("expected one of --validate-robots and --validate-since, got both")
    useless, why = given - {"root", "from_", "write", "to"}, "--from says which episodes they are"
    if settings.from_ is None:
        useless, why = given & {"share", "seed"}, "--validate-* says which episodes they are"
    if useless and (settings.from_ or settings.validate_robots or settings.validate_since):
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in sorted(useless))
        raise SettingsError(f"{why}: leave out {flags}")


def _rule(settings: DataSplitSettings) -> SplitRule:
    return SplitRule(
        robots=settings.validate_robots,
        since_ns=read_moment(settings.validate_since, "--validate-since"),
        share=settings.share,
        seed=settings.seed,
    )


def _print(console: Console, split: Split) -> None:
    for name, part in split.file.parts.items():
        console.print(
            f"{name}: {len(part.episodes)} episodes, {part.steps} steps, sha256 {part.sha256}",
            markup=False,
        )
    if split.pieces:
        console.print(f"left out for want of a beginning or an end: {split.pieces}")

"""``wm data gc``: free room in a store."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence

from pydantic import Field
from rich.console import Console

from wm_core.cli.data_care import Json, StoreSettings
from wm_core.cli.settings import parse
from wm_core.contract.files import json_text
from wm_core.recordings.care.free import Freed, FreeRule, free_store
from wm_core.recordings.care.moments import read_span
from wm_core.recordings.care.place import store_at

_NAMED = 20  #: files that are named


class DataGcSettings(StoreSettings):
    """Free room in a store: say what may go, and with --yes remove it.

    By itself it takes the quarantine and old ledgers of more than --aside-days, temporary files
    of killed processes and indices of an older version.  --max-bytes and --older-than let chunks
    go too, those that arrived first; chunks in which a person acted stay, and so does the newest.
    """

    max_bytes: int | None = Field(
        None, ge=0, description="Let the oldest chunks go until all others fit so many bytes"
    )
    older_than: str = Field("", description="Let chunks go that arrived longer ago: 90d, 12h")
    aside_days: float = Field(
        30.0, ge=0, description="Days after which quarantine and old ledgers may go"
    )
    keep_demonstrations: bool = Field(
        True, description="Keep chunks with a step at which a person acted"
    )
    keep_robots: tuple[str, ...] = Field((), description="Keep every chunk of these robots")
    yes: bool = Field(False, description="Remove it; without, nothing is changed")
    json_: Json = Field(False, description="Print one JSON object per file, and one that counts")


def main(argv: Sequence[str], verb: str) -> int:
    """Free room; returns the exit status."""
    settings = parse(DataGcSettings, argv, verb=f"data {verb}")
    older_than = settings.older_than
    rule = FreeRule(
        aside_ns=round(settings.aside_days * 86_400e9),
        max_bytes=settings.max_bytes,
        older_than_ns=read_span(older_than, "--older-than") if older_than else None,
        keep_demonstrations=settings.keep_demonstrations,
        keep_robots=settings.keep_robots,
    )
    root = store_at(settings.root)
    freed = free_store(root, rule, dry_run=not settings.yes)
    if settings.json_:
        _print_json(freed, settings.yes)
    else:
        _print(freed, settings.yes)
    return int(bool(freed.failed))


def _print_json(freed: Freed, done: bool) -> None:
    for item in freed.garbage:
        sys.stdout.write(json_text({**vars(item), "path": str(item.path)}) + "\n")
    counts = {
        "done": done, "files": len(freed.garbage), "bytes": freed.bytes, "steps": freed.steps,
        "kept_chunks": freed.kept, "kept_bytes": freed.kept_bytes,
        "left_bytes": freed.left_bytes,
        "failed": {str(path): reason for path, reason in freed.failed},
    }  # fmt: skip
    sys.stdout.write(json_text(counts) + "\n")


def _print(freed: Freed, done: bool) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for item in freed.garbage[:_NAMED]:
        console.print(f"{item.kind}: {item.path} ({item.bytes} bytes)", markup=False)
    if len(freed.garbage) > _NAMED:
        console.print(f"... and {len(freed.garbage) - _NAMED} more; --json names all")
    for path, reason in freed.failed:
        console.print(f"not removed: {path}: {reason}", markup=False)
    kinds = Counter(item.kind for item in freed.garbage)
    said = ", ".join(f"{kind} {count}" for kind, count in kinds.items()) or "nothing"
    steps = f", {freed.steps} steps" if freed.steps else ""
    verb = "removed" if done else "would be removed"
    console.print(f"{verb}: {said}; {freed.bytes / 1e6:.4g} MB{steps}", markup=False)
    if freed.kept:
        console.print(
            f"{freed.kept} older chunks stay, {freed.kept_bytes / 1e6:.4g} MB: demonstrations or "
            "robots that are kept",
            markup=False,
        )
    if freed.garbage and not done:
        console.print("nothing was changed; --yes removes it", markup=False)

"""``wm data``: recordings in and out, and the care of stored experience; a file per sub-verb."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.extras import install_extras

#: sub-verb -> (module with ``main(argv, verb) -> int``, what it does); sub-verbs may share one
SUB_VERBS: dict[str, tuple[str, str]] = {
    "import": ("wm_core.cli.data_import", "take recordings of other systems into a run's store"),
    "export": ("wm_core.cli.data_export", "write stored experience as LeRobot set, bags or npz"),
    "label": ("wm_core.cli.data_label", "give a store rewards, in a new store"),
    "ls": ("wm_core.cli.data_care", "list the episodes of a store"),
    "info": ("wm_core.cli.data_care", "print the data sheet of a store, with its hash"),
    "verify": ("wm_core.cli.data_verify", "check every step, and list what is wrong"),
    "repair": ("wm_core.cli.data_mend", "save the readable part of damaged files"),
    "split": ("wm_core.cli.data_split", "divide a store into reproducible parts"),
    "gc": ("wm_core.cli.data_gc", "free disk space: list what may go; --yes removes it"),
    "show": ("wm_core.cli.data_show", "draw an episode as pictures, plot and film"),
}

#: command lines that the help shows
EXAMPLES = (
    "wm data import bag_folder --robot robot.yaml --root runs/mine",
    "wm data export --root runs/mine --to mine_lerobot --format lerobot",
    'wm data label --root runs/mine --to labelled --with column "1 - abs(place[0])"',
    "wm data ls --root runs/mine --since 3d --min-return 100",
    "wm data verify --root runs/mine",
    "wm data repair --root runs/mine --dry-run",
    "wm data split --root runs/mine --seed 1 --write split.json --to parts",
    "wm data gc --root runs/mine --max-bytes 50e9",
    "wm data show best --root runs/mine --to pictures --gif",
)


def _usage() -> str:
    """Text of ``wm data --help``."""
    lines = [f"  {name:<8} {line}" for name, (_, line) in SUB_VERBS.items()]
    return "\n".join(
        [
            "usage: wm data VERB [options]    wm data VERB --help says more",
            "",
            *lines,
            "",
            "examples:",
            *(f"  {line}" for line in EXAMPLES),
            "",
            f"recordings need: {install_extras('data')}",
            "",
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Run one sub-verb; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    verb, *rest = argv
    if verb not in SUB_VERBS:
        raise SettingsError(nearest(verb, SUB_VERBS, what="verb of wm data"))
    return int(importlib.import_module(SUB_VERBS[verb][0]).main(rest, verb))

"""``wm bench``: measure one subject, in a module that is imported when it is called."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from wm_core.contract.errors import SettingsError, nearest

#: subject -> (module with ``run(argv) -> int``, what it measures)
SUBJECTS: dict[str, tuple[str, str]] = {
    "sim": ("wm_core.bench.sim", "pixel observations per second against dm_control's rendering"),
    "learner": ("wm_core.bench.learner", "seconds and memory of an update of the learner"),
    "replay": ("wm_core.bench.replay", "replay windows per second, warm and from disk"),
    "policy": ("wm_core.bench.policy", "latency of a policy step, p50, p99 and p99.9"),
    "gradient": (
        "wm_core.bench.gradient",
        "gradient of a dreamt reward over the actions before it",
    ),
}


def _usage() -> str:
    """Text of ``wm bench --help``."""
    lines = [f"  {name:<8} {line}" for name, (_, line) in SUBJECTS.items()]
    return "\n".join(
        [
            "usage: wm bench SUBJECT [--json] [options]    wm bench SUBJECT --help says more",
            "",
            *lines,
            "",
            "examples:",
            "  wm bench sim",
            "  wm bench learner --sizes micro --updates 5 --json",
            "",
            "--json prints one JSON object per line and nothing else on standard output",
            "",
        ]
    )


def main(argv: Sequence[str]) -> int:
    """Measure one subject; returns the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_usage())
        return 0
    subject, *rest = argv
    if subject not in SUBJECTS:
        raise SettingsError(nearest(subject, SUBJECTS, what="subject of wm bench"))
    from wm_core.cli.settings import whole_numbers

    with whole_numbers():
        return int(importlib.import_module(SUBJECTS[subject][0]).run(rest))

"""``wm demo``: run a simulated robot, its policy node, the service and the learner together."""

from __future__ import annotations

from collections.abc import Sequence

from wm_core.cli.settings import parse
from wm_core.demo.settings import DemoSettings


def main(argv: Sequence[str]) -> int:
    """Run the demo; 0 when it came to its report, whether the robot learnt or not."""
    settings = parse(DemoSettings, argv, verb="demo")
    from wm_core.demo.loop import Demo

    return Demo(settings).run()

"""``wm demo``: a simulated robot, its policy node, the service and the learner, all at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import Field

from wm_core.cli.settings import parse
from wm_core.contract.spec import Frozen


class DemoSettings(Frozen):
    """Show the whole loop: a robot in simulation learns from its camera while it runs.

    Service, learner, simulated robot and policy node run as processes of their own, with ROS 2
    between the two nodes.  At the end RUN holds report.json and report.html.  Ctrl-C stops all of
    them and leaves a checkpoint and the report so far.
    """

    minutes: float = Field(15.0, ge=1.0)  #: wall time of everything, evaluation included
    task: str = "seek"  #: a name from `wm tasks` whose action is a velocity and a turn rate
    run: Path = Path("runs/demo")  #: a folder that is there already becomes RUN.previous
    size: str = "micro"  #: of the world model
    episodes: int = Field(20, ge=10)  #: of each evaluation
    prefill: int = Field(300, ge=0)  #: random agent steps before the policy acts
    publish_every: int = Field(150, ge=50)  #: learner updates between two policies
    seed: int = Field(0, ge=0)
    best: float | None = None  #: return that counts as perfect; None: the scripted expert's


def main(argv: Sequence[str]) -> int:
    """Run the demo; 0 when it came to its report, whether the robot learnt or not."""
    settings = parse(DemoSettings, argv, verb="demo")
    from wm_core.demo.loop import Demo

    return Demo(settings).run()

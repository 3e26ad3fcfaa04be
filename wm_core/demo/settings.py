"""Options of ``wm demo``."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from wm_core.contract.spec import Frozen


class DemoSettings(Frozen):
    """Show the whole loop: a robot in simulation learns from its camera while it runs.

    Service, learner, simulated robot and policy node run as processes of their own, with ROS 2
    between the two nodes.  At the end RUN holds report.json and report.html.  Ctrl-C stops all of
    them and leaves a checkpoint and the report so far.
    """

    minutes: float = Field(
        15.0, ge=1.0, description="Minutes of the whole demo, 1 or more, evaluation included"
    )
    task: str = Field(
        "seek", description="Task from `wm tasks` whose action is a velocity and a turn rate"
    )
    run: Path = Field(
        Path("runs/demo"), description="Run folder; one that exists is renamed RUN.previous"
    )
    size: str = Field("micro", description="Size of the world model; see `wm presets`")
    episodes: int = Field(20, ge=10, description="Episodes of each evaluation, 10 or more")
    prefill: int = Field(300, ge=0, description="Random agent steps before the policy acts")
    publish_every: int = Field(
        150, ge=50, description="Learner updates between two policies, 50 or more"
    )
    seed: int = Field(0, ge=0, description="Seed of simulator, learner and policy")
    learner_nice: int = Field(
        10, ge=0, le=19, description="How far the learner yields to the robot, from 0 to 19"
    )
    best: float | None = Field(
        None, description="Return that counts as perfect; None: that of the scripted expert"
    )

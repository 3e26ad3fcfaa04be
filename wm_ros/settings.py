"""Parameters of the policy node to the settings of its parts; no ROS."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from wm_core.link.robot.spool import SpoolSettings
from wm_ros.pilot import PilotSettings
from wm_ros.policy_slot import SlotSettings
from wm_ros.safety import SafetySettings
from wm_ros.stream import StreamSettings

Params = dict[str, Any]  #: what ``wm_ros.params.read`` returns


def state_dir(p: Params, node: str) -> Path:
    """Where the node keeps its files."""
    home = Path(os.environ.get("ROS_HOME", "~/.ros"))
    return Path(p["state_dir"] or home / "wm_ros" / node).expanduser()


def safety(
    p: Params, *, card_max_obs_age_s: float = 0.0, period_s: float = 0.05
) -> SafetySettings:
    """When to stop; what the parameters leave open the policy's card decides."""
    return SafetySettings(
        max_obs_age_s=max(0.0, p["max_obs_age_s"] or card_max_obs_age_s),
        max_receive_age_s=p["max_gap_s"] or period_s,
        frozen_frames=p["frozen_frames"],
        latch=p["latch_safe"],
    )


def slot(p: Params, state_dir: Path) -> SlotSettings:
    """How policies are swapped."""
    return SlotSettings(
        swap_mode=p["swap_mode"],
        history_s=p["history_s"],
        mean=p["exploration"] == "mean",
        seed=p["seed"],
        log=state_dir / "swaps.jsonl",
    )


def pilot(p: Params) -> PilotSettings:
    """How the robot explores."""
    return PilotSettings(
        exploration_noise=p["exploration_noise"],
        random_prefill=p["random_prefill"],
        random_hold=p["random_hold"],
        seed=p["seed"],
    )


def stream(p: Params, state_dir: Path) -> StreamSettings:
    """Where experience goes and policies come from."""
    return StreamSettings(
        robot=p["robot"],
        spool_dir=Path(p["spool_dir"] or state_dir / "spool").expanduser(),
        cache_dir=state_dir / "policies",
        spool=SpoolSettings(
            seal_steps=p["seal_steps"], seal_s=p["seal_s"], max_bytes=p["spool_max_bytes"]
        ),
        trainer_url=p["trainer_url"],
        channel=p["channel"],
        token_file=p["token_file"],
        record=p["record"],
    )

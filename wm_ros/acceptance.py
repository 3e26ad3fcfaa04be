"""Checks whether a policy fits this robot; no ROS."""

from __future__ import annotations

from collections.abc import Sequence

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import Spec
from wm_ros.commands import Command
from wm_ros.sensors.source import Source
from wm_ros.sensors.table import assign


def check_acceptable(
    spec: Spec, *, command: Command, sources: Sequence[Source], running: Spec | None
) -> None:
    """Raise ``SpecMismatch`` for a policy that this robot cannot run.

    Args:
        spec: of the policy.
        command: that the robot obeys.
        sources: sensors that the robot has.
        running: spec of the policy that runs; None before the first one.
    """
    action = spec.action
    command.check(action.size, discrete=action.discrete, what="the policy")
    assign(sources, spec)
    if running is not None and spec != running:
        raise SpecMismatch(f"expected the running policy's spec {running}, got {spec}")

"""Offers what operators call: to let a stopped robot act again."""

from __future__ import annotations

from contextlib import ExitStack

from rclpy.node import Node
from std_srvs.srv import Trigger

from wm_ros.safety import Guard


class OperatorServices:
    """Offers ``~/rearm``.

    Args:
        node: that offers it.
        closers: closes the services.
        guard: that is rearmed.
    """

    def __init__(self, node: Node, closers: ExitStack, guard: Guard) -> None:
        self._guard = guard
        closers.callback(
            node.destroy_service, node.create_service(Trigger, "~/rearm", self._on_rearm)
        )

    def _on_rearm(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success, response.message = True, f"was latched by {self._guard.latched}"
        self._guard.rearm()
        return response

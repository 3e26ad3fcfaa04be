"""Answers ``ros2 param set``: applies what may change in a running node, refuses the rest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Generic

from wm_core.contract.errors import SettingsError, WmError
from wm_ros.parameters.given import Param
from wm_ros.parameters.params import Model, build

if TYPE_CHECKING:
    from rclpy.node import Node
    from rclpy.parameter import Parameter

#: read once, by a node with a life cycle too
AT_START = ("use_sim_time", "autostart")
_LEVELS = {"": "UNSET", "debug": "DEBUG", "info": "INFO", "warn": "WARN", "error": "ERROR"}


class Changes(Generic[Model]):
    """Listens to changes of a node's parameters, from now on.

    Args:
        node: whose parameters have been declared.
        table: the parameters of ``model``.
        model: of the node's settings.
        apply: gets the new settings; raises ``WmError`` to refuse them.
        configured: whether the parameters that are not ``live`` are in use; None: from now on.
    """

    def __init__(
        self,
        node: Node,
        table: Sequence[Param],
        model: type[Model],
        *,
        apply: Callable[[Model], None],
        configured: Callable[[], bool] | None = None,
    ) -> None:
        self._node, self._model = node, model
        self._table = {param.name: param for param in table}
        self._apply, self._configured = apply, configured
        node.add_on_set_parameters_callback(self._on_set)
        # Humble has no such callback: there a number must be written with its decimal point.
        convert = getattr(node, "add_pre_set_parameters_callback", None)
        if convert is not None:
            convert(self._with_points)

    def _with_points(self, changed: list[Parameter]) -> list[Parameter]:
        """Turn whole numbers into floats where the parameter is one."""
        from rclpy.parameter import Parameter

        return [
            Parameter(p.name, value=float(p.value))
            if isinstance(getattr(self._table.get(p.name), "default", None), float)
            and type(p.value) is int
            else p
            for p in changed
        ]

    def _on_set(self, changed: list[Parameter]) -> Any:
        from rcl_interfaces.msg import SetParametersResult

        ours = [
            p for p in changed if self._node.has_parameter(p.name)
        ]  # others are being declared
        try:
            for parameter in ours:
                self._refuse_fixed(parameter.name)
            new = {p.name: p.value for p in ours if p.name in self._table}
            if new:
                values = {n: self._node.get_parameter(n).value for n in self._table}
                self._apply(build(self._model, self._table.values(), values | new))
        except WmError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def _refuse_fixed(self, name: str) -> None:
        """Raise ``SettingsError`` for a parameter that is in use and cannot change now."""
        param = self._table.get(name)
        if param is not None and param.live:
            return
        if self._configured is None or name in AT_START:
            raise SettingsError(
                f"{name!r} is read-only, because it is read when the node starts: set it in the "
                "parameter file or at launch, and start the node anew"
            )
        if self._configured():
            raise SettingsError(
                f"{name!r} is read-only, because it is read when the node is configured: set it "
                "in the parameter file or at launch and start the node anew, or set it between "
                "`ros2 lifecycle set NODE cleanup` and `configure`"
            )


def set_log_level(node: Node, level: str) -> None:
    """Log what is at least as severe as ``level``; empty: as the command line said."""
    from rclpy.logging import LoggingSeverity

    node.get_logger().set_level(LoggingSeverity[_LEVELS[level]])

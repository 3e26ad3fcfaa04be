"""Runs one node in one process, with signal handling that lets it send its last command.

Under rclpy's own handlers the context is down before the node can publish its last zero, SIGTERM
may crash and a second SIGINT (which launch does send) ends the process with an error.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from wm_core.contract.errors import WmError

POLL_S = 0.1  #: longest time until a signal is noticed


def run(make: Callable[[], Node], argv: Sequence[str] | None = None) -> int:
    """Spin the node that ``make`` builds until SIGINT or SIGTERM and return the exit code.

    Args:
        make: builds a node once rclpy is initialised.  Its ``begin`` is called before the first
            spin, its ``finish`` after a signal, while it can still publish.
        argv: command line; None is ``sys.argv``.
    """
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, frame: stopping.append(got))
    # Threads that encode and compress hold the interpreter lock for 5 ms at a time by default:
    # too long for a control loop that waits for it.
    sys.setswitchinterval(0.001)
    rclpy.init(
        args=None if argv is None else list(argv),
        signal_handler_options=SignalHandlerOptions.NO,
    )
    try:
        return _spin(make, stopping)
    finally:
        rclpy.try_shutdown()


def _spin(make: Callable[[], Node], stopping: list[int]) -> int:
    try:
        node = make()
    except WmError as error:
        rclpy.logging.get_logger("wm_ros").fatal(str(error))
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        node.begin()
        while not stopping and rclpy.ok():
            executor.spin_once(timeout_sec=POLL_S)
    except WmError as error:
        node.get_logger().fatal(str(error))
        return 2
    finally:
        node.finish()
        executor.shutdown(timeout_sec=1.0)
        node.destroy_node()
    return 0

"""Runs one node in one process, with signal handling that lets it send its last command.

Under rclpy's own handlers the context is down before the node can publish its last zero, SIGTERM
may crash and a second SIGINT (which launch does send) ends the process with an error.
"""

from __future__ import annotations

import gc
import re
import sys
import traceback
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions

from wm_core.contract.errors import SettingsError, WmError
from wm_ros.process import signals

POLL_S = 0.1  #: longest time until a signal is noticed
FAILED = 1  #: exit code after a fault of the program
REFUSED = 2  #: exit code after arguments or parameters that the user can correct
_SOURCE_LINES = re.compile(r", at \S+:\d+")  # where in ROS's own C code an error arose


def run(make: Callable[[], Node], argv: Sequence[str] | None = None) -> int:
    """Spin the node that ``make`` builds until a signal ends it and return the exit code.

    Args:
        make: builds a node once rclpy is initialised.  Its ``begin`` is called before the first
            spin, its ``finish`` after a signal, while it can still publish.
        argv: command line; None is ``sys.argv``.
    """
    stopping = signals.remember()
    if stopping:
        return 0
    # Threads that encode and compress hold the interpreter lock for 5 ms at a time by default:
    # too long for a control loop that waits for it.
    sys.setswitchinterval(0.001)
    try:
        _initialise(argv)
        return _spin(make, stopping)
    except WmError as error:
        rclpy.logging.get_logger("wm_ros").fatal(str(error))
        return REFUSED
    except Exception:  # raised on, it would keep the node from being collected below
        rclpy.logging.get_logger("wm_ros").fatal(traceback.format_exc())
        return FAILED
    finally:
        rclpy.try_shutdown()
        # A lifecycle node is part of reference cycles, and the DDS participant lives as long as
        # it: while the process exits, its threads would race the libraries' own destructors.
        gc.collect()


def _initialise(argv: Sequence[str] | None) -> None:
    """Initialise rclpy; what the command line got wrong is one line."""
    try:
        rclpy.init(
            args=None if argv is None else list(argv),
            signal_handler_options=SignalHandlerOptions.NO,
        )
    except RuntimeError as error:  # rclpy's own errors have no public names
        if type(error).__name__ == "UnknownROSArgsError":
            raise SettingsError(f"unknown arguments behind --ros-args: {error}") from error
        text = _SOURCE_LINES.sub("", str(error)).removeprefix("failed to initialize rcl: ")
        raise SettingsError(f"command line or parameter file: {text}") from error


def _spin(make: Callable[[], Node], stopping: Sequence[int]) -> int:
    node = make()
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    with ExitStack() as ends:  # the last first, and the others too where one raises
        ends.callback(node.destroy_node)
        ends.callback(executor.shutdown, timeout_sec=1.0)
        ends.callback(node.finish)
        try:
            if not stopping:
                node.begin()
            while not stopping and rclpy.ok():
                executor.spin_once(timeout_sec=POLL_S)
        except WmError as error:
            node.get_logger().fatal(str(error))
            return REFUSED
        except Exception:  # said before the ends, which may raise as well
            node.get_logger().fatal(traceback.format_exc())
            return FAILED
    return 0

"""Loads what reads messages once, for all tests of sensors."""

from __future__ import annotations

import contextlib
import warnings

with warnings.catch_warnings(), contextlib.suppress(ImportError):
    warnings.simplefilter("ignore", DeprecationWarning)  # of a parser that rclpy imports
    from rclpy.type_support import check_for_type_support
    from sensor_msgs.msg import JointState

    check_for_type_support(JointState)

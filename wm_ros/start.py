"""Starts the executables of this package: what ``ros2 run`` and the launch files call.

Each one remembers signals before it imports anything that takes time.
"""

from __future__ import annotations

from wm_ros.process import signals


def policy_node() -> int:
    """Run ``wm_ros.policy_node``; returns the exit code."""
    signals.remember()
    from wm_ros.policy_node import main

    return main()


def sim_node() -> int:
    """Run ``wm_ros.sim_node``; returns the exit code."""
    signals.remember()
    from wm_ros.sim_node import main

    return main()


def doctor() -> int:
    """Run ``wm_ros.doctor.main``; returns the exit code."""
    from wm_ros.doctor.main import main

    return main()

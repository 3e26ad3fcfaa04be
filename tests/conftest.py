"""What every test shares: isolation from other robots, headless rendering, honest skips."""

import os
import re

# Set before anything imports rclpy or mujoco; what the caller chose stays.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")  # softpipe's threads only fight the test's own

#: reasons that hold on a machine where everything that pip and apt give was installed
ACCEPTED = re.compile(
    r"launch_ros|launch_testing|launch system|is not built"  # ROS beyond what pip gives
    r"|CUDA|GPU|Python 3\.|robot-setup|onnxruntime 1\."  # other machines, other interpreters
    r"|tmpfs|beside the loopback",  # rights and networks of a container
    re.IGNORECASE,
)


def pytest_addoption(parser):
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail when a test is skipped for a reason that this machine should not have",
    )


def _reason(report):
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def pytest_terminal_summary(terminalreporter, config):
    if not config.getoption("--strict-skips"):
        return
    for report in terminalreporter.stats.get("skipped", []):
        if not ACCEPTED.search(_reason(report)):
            terminalreporter.write_line(f"must not be skipped here: {report.nodeid}", red=True)


def pytest_sessionfinish(session, exitstatus):
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if session.config.getoption("--strict-skips") and reporter and exitstatus == 0:
        skipped = reporter.stats.get("skipped", [])
        if not all(ACCEPTED.search(_reason(report)) for report in skipped):
            session.exitstatus = 1

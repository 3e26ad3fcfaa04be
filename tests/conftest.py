"""What every test shares: isolation from other robots and other workers, and honest skips.

Tests run in several processes side by side (pytest-xdist), called workers. The tests of a file run
in one worker, in order, and share what their fixtures make. Each worker has ROS domains that no
other one uses; ports are given by the system; folders come from ``tmp_path``.
"""

import os
import re

import pytest

try:
    from xdist.scheduler import LoadFileScheduling
except ImportError:  # tests then run one after the other
    LoadFileScheduling = object

# Set before anything imports rclpy or mujoco; what the caller chose stays.
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
os.environ.setdefault("MUJOCO_GL", "egl")
os.environ.setdefault("LP_NUM_THREADS", "0")  # softpipe's threads only compete with the test's own

#: reasons that hold on a machine where everything that pip and apt give was installed
ACCEPTED = re.compile(
    r"launch_ros|launch_testing|launch system|is not built"  # ROS beyond what pip gives
    r"|CUDA|GPU|Python 3\.|robot-setup|onnxruntime 1\."  # other machines, other interpreters
    r"|tmpfs|beside the loopback|ptrace",  # rights and networks of a container
    re.IGNORECASE,
)


def _worker() -> tuple[int, int]:
    """Number of this process and how many run tests side by side; (0, 1) without xdist."""
    name = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    return int(name.removeprefix("gw")), int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))


def _domains() -> tuple[int, ...]:
    """ROS domains of this process: of 1 .. 101, whose ports no other program is given."""
    number, workers = _worker()
    return tuple(range(1 + number, 102, workers))


# What a test starts without choosing a domain meets no robot and no test of another process.
os.environ["ROS_DOMAIN_ID"] = str(_domains()[0])


@pytest.fixture(scope="session")
def ros_domains() -> tuple[int, ...]:
    """The ROS domains that tests of this process may use, and no other process does."""
    return _domains()


@pytest.fixture(scope="session", autouse=True)
def _patience():
    """Wait 120 s, not 5, for threads of spool and uploader to end or to write what they hold.

    A robot that shuts down waits five seconds for them; what they had not written then is found
    again later.  A test that looks at the disk next must not find it half done.
    """
    from wm_core.link.robot.spool import Spool
    from wm_core.link.robot.uploader import Uploader
    from wm_core.link.robot.worker import Worker

    with pytest.MonkeyPatch.context() as patch:
        for function in (Spool.flush, Spool.close, Uploader.close, Worker.close):
            patch.setattr(function, "__defaults__", (120.0,))
        yield


# ------------------------------------------------------------------ side by side

#: what takes longest comes first, so that no worker is left with it at the end
FIRST = (
    "tests/learn/",
    "tests/wm_core/demo/test_whole_demo.py",
    "tests/wm_core/exporting/test_presets.py",
    "tests/wm_core/training/",
    "tests/wm_core/",
    "tests/wm_ros/test_presets.py",
    "tests/examples/",
    "tests/benchmarks/",
    "tests/wm_ros/",
)
#: files whose tests have no fixture in common that is dear: each test may go to another worker
APART = ("tests/learn/", "tests/examples/", "tests/benchmarks/")


def pytest_collection_modifyitems(items):
    """Order the tests by ``FIRST``; those of a file stay together."""

    def rank(item):
        places = (n for n, start in enumerate(FIRST) if item.nodeid.startswith(start))
        return next(places, len(FIRST))

    items.sort(key=rank)


class Scheduling(LoadFileScheduling):
    """Gives a file as a whole to the next free worker, and a test of ``APART`` by itself."""

    def _split_scope(self, nodeid):
        return nodeid if nodeid.startswith(APART) else super()._split_scope(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    if config.getoption("dist") != "loadfile":
        return None  # as the caller chose
    config.option.loadscopereorder = False
    return Scheduling(config, log)


# ------------------------------------------------------------------ skips


def pytest_addoption(parser):
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail when a test is skipped for a reason that this machine should not have",
    )


def _reason(report):
    return report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)


def _wrongly_skipped(config) -> list[str]:
    """Names of tests skipped for no accepted reason; known to the process that reports."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or not config.getoption("--strict-skips"):
        return []
    skipped = reporter.stats.get("skipped", [])
    return sorted({r.nodeid for r in skipped if not ACCEPTED.search(_reason(r))})


def pytest_terminal_summary(terminalreporter, config):
    for name in _wrongly_skipped(config):
        terminalreporter.write_line(f"must not be skipped here: {name}", red=True)


def pytest_sessionfinish(session, exitstatus):
    if exitstatus == 0 and _wrongly_skipped(session.config):
        session.exitstatus = 1

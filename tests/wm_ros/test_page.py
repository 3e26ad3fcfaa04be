"""A robot that ticks in real ROS, seen in a real browser by the page of its trainer's service."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.wm_core.page.browser import opened_browser

# apt-get install chromium; pytest -m slow tests/wm_ros/test_page.py
pytestmark = [pytest.mark.ros, pytest.mark.mujoco, pytest.mark.slow]


@pytest.fixture
def browser():
    with opened_browser() as found:
        yield found


@pytest.fixture
def service(processes, tmp_path):
    """The address of a ``wm serve --ui`` in a process of its own."""
    argv = ["-m", "wm_core.cli", "serve", "--root", str(tmp_path / "run"), "--port", "0", "--ui"]
    process = subprocess.Popen(
        [sys.executable, *argv], env=processes.env, stdout=subprocess.PIPE, text=True
    )
    assert "serving" in process.stdout.readline()
    yield process.stdout.readline().split()[1].removesuffix("/ui/")
    process.kill()
    process.communicate()


def seen(words, place="#robots"):
    """A script that is true as soon as an element says these words."""
    return f"document.querySelector('{place}').innerText.includes('{words}')"


def test_a_ticking_robot_is_seen_until_it_stops(
    processes, watcher, service, policy_at, spec_of, report_of, browser, tmp_path
):
    state = tmp_path / "state"
    policy_at(tmp_path / "policy", bias=0.4, version=3, spec=spec_of(64, 0.1), task="seek")
    processes.start("sim_node", {"task": "seek"})
    processes.start(
        "policy_node",
        {
            "state_dir": str(state),
            "policy_dir": str(tmp_path / "policy"),
            "trainer_url": service,
            "robot": "kitchen",
            "spool.seal_steps": 16,
        },
    )
    browser.size(1440, 900)
    browser.open(f"{service}/ui/")
    browser.wait(seen("1 robot", "#links"), timeout_s=120)
    for words in ("kitchen", "acts", "version 3", "tick p99"):
        browser.wait(seen(words), timeout_s=120)
    picture = "document.getElementById('robot-0-camera-0')"
    browser.wait(f"{picture}?.naturalWidth === 64")
    before = browser.run(f"{picture}.src")
    browser.wait(f"{picture}.src !== {before!r}")  # it moves
    browser.wait("document.querySelectorAll('#robot-0-state svg rect').length >= 2")
    watcher.until(
        lambda: report_of(state / "status.json").get("chunks_acked", 0) >= 2, "chunks arrive"
    )
    browser.wait("!document.querySelector('#lost').innerText.includes('Nothing is stored yet')")
    browser.picture(tmp_path / "wide.png")
    browser.size(390, 844)
    browser.wait("document.documentElement.scrollWidth <= 390")
    browser.picture(tmp_path / "narrow.png")
    assert processes.stop("policy_node") == 0
    browser.wait(seen("robot lost: kitchen", "#links"))
    assert "Not heard for" in browser.text("#robots")
    assert processes.stop("sim_node") == 0
    assert browser.complaints == []

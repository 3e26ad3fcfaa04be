"""The whole loop, started as a user starts it and stopped as a user stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="the demo needs rclpy")
pytestmark = [pytest.mark.ros, pytest.mark.mujoco]

KEYS = [
    "task",
    "minutes",
    "random_return",
    "best_return",
    "first_return",
    "final_return",
    "final_return_low",
    "random_return_high",
    "eval_episodes",
    "steps_recorded",
    "steps_stored",
    "chunks_sent",
    "chunks_acked",
    "chunks_lost",
    "policy_versions",
    "swaps",
    "ticks",
    "missed_ticks",
    "safe_ticks",
    "tick_p50_ms",
    "tick_p99_ms",
    "obs_age_p99_ms",
    "learner_updates",
    "commit",
]


def processes_of(run: Path) -> list[str]:
    """Command lines of living processes that name ``run``."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(run) in line and "pytest" not in line:
                found.append(line)
    return found


def wait_until(condition, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.2)
    return bool(condition())


def read(path: Path) -> dict[str, object]:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return {}


def test_ctrl_c_leaves_a_report_a_checkpoint_and_no_orphan(tmp_path: Path) -> None:
    run = tmp_path / "demo"
    argv = [sys.executable, "-m", "wm_core.cli", "demo", "--run", str(run), "--prefill", "60"]
    log = (tmp_path / "log").open("wb")
    deaf = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background job inherits it
    demo = subprocess.Popen([*argv, "--episodes", "10"], stdout=log, stderr=log)
    signal.signal(signal.SIGINT, deaf)
    try:
        learning = wait_until(
            lambda: (
                int(read(run / "status.json").get("updates", 0)) >= 3  # type: ignore[call-overload]
                or demo.poll() is not None
            ),
            timeout_s=240,
        )
        assert learning, (tmp_path / "log").read_text()
        assert demo.poll() is None, (tmp_path / "log").read_text()
        demo.send_signal(signal.SIGINT)
        assert demo.wait(120) == 130, (tmp_path / "log").read_text()
    finally:
        demo.kill()
        log.close()
    assert wait_until(lambda: not processes_of(run), timeout_s=10), processes_of(run)
    report = read(run / "report.json")
    assert [k for k in KEYS if k not in report] == []
    assert report["chunks_lost"] == 0
    assert report["chunks_sent"] == report["chunks_acked"]
    assert report["steps_stored"] == report["steps_recorded"]
    assert report["steps_unaccounted"] == 0
    assert int(report["steps_stored"]) > 60  # type: ignore[call-overload]
    assert report["best_return"] > report["random_return"]  # type: ignore[operator]
    assert list((run / "checkpoints").iterdir())
    assert "<svg" in (run / "report.html").read_text()

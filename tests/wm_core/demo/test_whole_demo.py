"""The whole loop, started as a user starts it and stopped as a user stops it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


def processes_of(run: Path) -> dict[int, str]:
    """Command lines of living processes that name ``run``, by their id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(run) in line:
                found[int(entry.name)] = line
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


@contextmanager
def learning_demo(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A demo whose learner has made its first updates, and its run folder."""
    run, log = folder / "demo", folder / "log"
    argv = [sys.executable, "-m", "wm_core.cli", "demo", "--run", str(run), "--prefill", "60"]
    argv += ["--episodes", "10", "--learner-nice", "0"]
    deaf = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell's background job inherits it
    with log.open("wb") as out:
        demo = subprocess.Popen(argv, stdout=out, stderr=out)
        signal.signal(signal.SIGINT, deaf)
        try:
            assert wait_until(
                lambda: (
                    int(read(run / "status.json").get("updates", 0)) >= 3  # type: ignore[call-overload]
                    or demo.poll() is not None
                ),
                timeout_s=900,
            ), log.read_text()
            assert demo.poll() is None, log.read_text()
            yield demo, run
        finally:
            demo.kill()
            demo.wait()


def test_ctrl_c_leaves_a_report_a_checkpoint_and_no_orphan(tmp_path: Path) -> None:
    with learning_demo(tmp_path) as (demo, run):
        demo.send_signal(signal.SIGINT)
        assert demo.wait(900) == 130, (tmp_path / "log").read_text()
    assert wait_until(lambda: not processes_of(run), timeout_s=300), processes_of(run)
    report = read(run / "report.json")
    assert [k for k in KEYS if k not in report] == []
    assert report["ended"] == "interrupted"
    assert report["chunks_lost"] == 0
    assert report["chunks_sent"] == report["chunks_acked"]
    assert report["steps_stored"] == report["steps_recorded"]
    assert report["steps_unaccounted"] == 0
    assert int(report["steps_stored"]) > 60  # type: ignore[call-overload]
    assert report["best_return"] > report["random_return"]  # type: ignore[operator]
    assert list((run / "checkpoints").iterdir())
    assert "<svg" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_learner_that_dies_is_named_in_the_report(tmp_path: Path) -> None:
    with learning_demo(tmp_path) as (demo, run):
        (learner,) = [pid for pid, line in processes_of(run).items() if " train " in line]
        os.kill(learner, signal.SIGKILL)
        assert demo.wait(900) == 1, (tmp_path / "log").read_text()
    assert wait_until(lambda: not processes_of(run), timeout_s=300), processes_of(run)
    report = read(run / "report.json")
    assert str(report["ended"]).startswith("learner ended with -9")
    assert (report["chunks_lost"], report["steps_unaccounted"]) == (0, 0)

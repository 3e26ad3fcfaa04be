"""Rows are made once, and a run that was cut goes on: with real training of the smallest agent."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.results.command import main
from benchmarks.results.contest import Settings
from benchmarks.results.row import PICTURE_BYTES, cpu_s_per_update, curve, shrink

ROOT = Path(__file__).parents[3]
TASK = "own_task:Corridor-v0"
#: a network of a few thousand weights and 384 agent steps, which is some 100 updates
OPTIONS = (
    "--world.encoder.kind k4s2 --world.encoder.depth 2 --world.gru.deter 16 --world.gru.hidden 8 "
    "--world.gru.blocks 2 --world.categorical.groups 4 --world.categorical.classes 4 "
    "--world.posterior.units 8 --world.net.units 8 --world.units 16 --world.heads.bins 41 "
    "--behavior.imag-starts 8 --behavior.imag-horizon 4 --replay.batch 4 --replay.length 8 "
    "--replay.latents 5000 --train.prefill 64 --train.replay-ratio 8 --train.log-every 10 "
    "--train.checkpoint-every-s 1 --train.steps 384"
)


def lines(run):
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def corridor(monkeypatch):
    """The task of one's own, importable in processes that are started from here."""
    path = os.pathsep.join([str(ROOT / "examples"), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)


@pytest.fixture
def places(tmp_path):
    return {name: tmp_path / name for name in ("runs", "out", "pictures")}


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_and_a_row_that_exists_is_skipped(corridor, places, capsys):
    run = places["runs"] / "own_task_Corridor-v0" / "dreamer_v3-0"
    row = places["out"] / "own_task_Corridor-v0" / "dreamer_v3-0.json"
    words = ["--presets", "dreamer_v3", "--task", TASK, f"--options={OPTIONS}"]
    words += ["--episodes", "2", "--ticks", "10"]
    words += [word for name, path in places.items() for word in (f"--{name}", str(path))]

    def start():
        argv = [sys.executable, "-m", "benchmarks.results", *words]
        return subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, text=True)

    with start() as process:
        deadline_s = time.monotonic() + 900
        while not (run / "metrics.jsonl").exists() or not lines(run)[-1:]:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        said = process.communicate(timeout=900)[1]
    assert process.returncode == 1, said
    assert not row.exists()
    before = json.loads((run / "status.json").read_text())
    assert 0 < before["agent_steps"] < 384

    with start() as process:
        said = process.communicate(timeout=900)[1]
    assert process.returncode == 0, said
    got = json.loads(row.read_text())
    assert got["failed"] is None, got["failed"]
    assert got["updates"] > before["updates"]
    assert 60 * got["cpu_minutes"] > before["cpu_s"]
    seconds = [line["cpu_s"] for line in lines(run)]
    assert seconds == sorted(seconds)
    assert got["trained"]["episodes"] == got["untrained"]["episodes"] == 2
    assert 0 < got["latency"]["p50_ms"] <= got["latency"]["p99_ms"]
    assert got["parts"]["backbone"] == "gru 16, block"
    assert got["curve"]["agent_steps"] == sorted(got["curve"]["agent_steps"]) != []
    assert (places["pictures"] / "dreamer_v3-own_task_Corridor-v0.png").exists()
    assert not (run / "store").exists()
    sticks = json.loads((row.parent / "yardsticks.json").read_text())
    assert (sticks["random"]["episodes"], sticks["expert"]) == (2, None)

    then = row.stat().st_mtime_ns
    assert main(Settings(presets=("dreamer_v3",), task=TASK, options=OPTIONS, **places)) == 0
    assert "its row exists" in capsys.readouterr().err
    assert row.stat().st_mtime_ns == then


@pytest.mark.long
def test_a_run_that_fails_leaves_a_row_that_says_why(corridor, places):
    folder = places["out"] / "own_task_Corridor-v0"
    folder.mkdir(parents=True)
    (folder / "yardsticks.json").write_text("{}")
    even = "--world.heads.bins 40"
    assert main(Settings(presets=("awm",), task=TASK, options=even, **places)) == 0
    got = json.loads((folder / "awm-0.json").read_text())
    assert "wm train ended with 2" in got["failed"]
    assert got["updates"] == 0


# ------------------------------------------------------------------------------ figures


def test_a_curve_is_of_means_over_a_window_in_few_points():
    rows = [
        {"cpu_s": 60.0 * i, "updates": 10 * i, "agent_steps": 20 * i, "episode/return": float(i)}
        for i in range(200)
    ]
    rows.insert(3, {"cpu_s": 0.0, "updates": 0, "agent_steps": 0})  # no episode ended
    got = curve(rows, window=4, most=5)
    assert got["updates"][0] == 0
    assert got["cpu_minutes"][-1] == 199.0
    assert got["return"][0] == 0.0
    assert got["return"][-1] == np.mean([196, 197, 198, 199])
    assert len(got["return"]) == len(got["agent_steps"]) == 5


def test_an_update_costs_what_the_second_half_of_them_took():
    rows = [{"updates": 0, "cpu_s": 50.0}, {"updates": 100, "cpu_s": 60.0}]
    rows += [{"updates": 200, "cpu_s": 80.0}]
    assert cpu_s_per_update(rows) == 0.2
    assert cpu_s_per_update([]) is None


def test_a_picture_shrinks_until_it_is_small_enough(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (196, 1056, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "large.png")
    shrink(tmp_path / "large.png", tmp_path / "there" / "small.png")
    assert (tmp_path / "there" / "small.png").stat().st_size < PICTURE_BYTES

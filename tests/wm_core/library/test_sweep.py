"""A sweep: what it plans, how it keeps its processes, and that it goes on where it stopped.

Here a small program stands for ``wm``: it writes what it was asked and does what its seed says.
The sweep of real trainings is in tests/wm_core/training.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import threading

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.library.run_lock import RunLock
from wm_core.library.sweep import NAME, Sweep, plan, refused

#: trains until its seed's behaviour says otherwise; evaluates to ten times the seed
PROGRAM = """
import json, os, pathlib, signal, sys, time
verb, *words = sys.argv[1:]
run = pathlib.Path(words[words.index("--run") + 1])
calls = run.parent / "calls"
with calls.open("a") as file:
    file.write(json.dumps([verb, run.name, words]) + "\\n")
seed = int(run.name.rpartition("seed")[2])
def status(phase, updates):
    (run / "status.json").write_text(json.dumps({"phase": phase, "updates": updates}))
if verb == "evaluate":
    if seed == 13:
        sys.exit("no policy")
    print(json.dumps({"mean": 10.0 * seed, "episodes": 2}))
    sys.exit(0)
assert run.is_dir()
if seed == 7:
    sys.exit("seed 7 always fails")
if seed == 99 and not (run / "resumed").exists():  # trains until it is told to end
    told = []
    signal.signal(signal.SIGTERM, lambda *_: told.append(1))
    (run / "resumed").touch()
    status("training", 1)
    while not told:
        time.sleep(0.01)
    status("stopped", 2)
    sys.exit(0)
beside = run.parent / "beside"
beside.mkdir(exist_ok=True)
(beside / run.name).touch()
with (run.parent / "most").open("a") as file:
    file.write(f"{len(list(beside.iterdir()))}\\n")
time.sleep(0.1)
(beside / run.name).unlink()
status("done", 5)
"""


@pytest.fixture
def sweep_of(tmp_path):
    """Makes a sweep of a stand-in program over the given seeds."""
    program = tmp_path / "stand_in.py"
    program.write_text(PROGRAM)

    def make(*seeds, sets=(), jobs=2, more=("--train.updates", "5"), evaluate=("--seed", "3")):
        members = plan(["seek"], ["twm"], seeds, sets, more)
        command = (sys.executable, "-S", str(program))
        return Sweep(tmp_path / "s", members, jobs=jobs, evaluate=evaluate, command=command)

    return make


def run(sweep, on_change=None):
    with sweep:
        sweep.run(threading.Event(), on_change)
    return {name: progress.state for name, progress in sweep.progress.items()}


def calls(tmp_path):
    lines = (tmp_path / "s" / "calls").read_text().splitlines()
    return [tuple(json.loads(line)[:2]) for line in lines]


def test_a_plan_is_every_choice_with_every_seed():
    members = plan(["seek"], ["twm", "awm"], [0, 4], ["optim.lr=1e-3,1e-4"], ["--device", "cpu"])
    assert [m.name for m in members][:3] == [
        "twm-optim.lr=1e_3-seed0",
        "twm-optim.lr=1e_3-seed4",
        "twm-optim.lr=1e_4-seed0",
    ]
    assert len({m.setting for m in members}) == 4
    assert len(members) == 8
    assert members[1].words == (
        *("--task", "seek", "--preset", "twm", "--optim.lr", "1e-3", "--seed", "4"),
        *("--device", "cpu"),
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("replay.online_queue=false", ["--replay.no-online-queue"]),
        ("publish=True", ["--publish"]),
        ("optim.stages=5 10,1 2", ["--optim.stages", "5", "10"]),
        ("--train.replay-ratio=16", ["--train.replay-ratio", "16"]),
    ],
)
def test_a_choice_becomes_words_of_a_command_line(text, words):
    member = plan(["seek"], ["twm"], [0], [text])[0]
    assert list(member.words)[4 : 4 + len(words)] == words


def test_several_tasks_are_told_apart_by_name():
    names = [m.name for m in plan(["seek", "my_module:Task-v0"], ["twm"], [0])]
    assert names == ["seek-twm-seed0", "my_module_Task_v0-twm-seed0"]


@pytest.mark.parametrize("text", ["train.steps", "train.steps=", "=3", "train.steps=1,,2"])
def test_a_choice_without_option_or_values_is_refused(text):
    with pytest.raises(SettingsError, match=r"expected an option and its values"):
        plan(["seek"], ["twm"], [0], [text])


def test_the_same_run_twice_is_refused():
    with pytest.raises(SettingsError, match="twm-seed0 several times"):
        plan(["seek"], ["twm"], [0, 0])


def test_options_that_a_sweep_chooses_are_refused():
    reasons = list(refused(["--seed", "3", "--run=x", "--follow", "--train.minutes", "5"]))
    assert len(reasons) == 3
    assert "--seeds" in reasons[0]
    assert "--root" in reasons[1]


def test_each_run_is_trained_and_evaluated_and_seeds_make_bounds(sweep_of, tmp_path):
    sweep = sweep_of(1, 2, 3)
    assert set(run(sweep).values()) == {"done"}
    assert sorted(calls(tmp_path)) == sorted(
        (verb, f"twm-seed{seed}") for verb in ("train", "evaluate") for seed in (1, 2, 3)
    )
    (result,) = sweep.results()
    assert (result.setting, result.seeds, result.means) == ("twm", (1, 2, 3), (10.0, 20.0, 30.0))
    assert result.mean == 20.0
    low, high = result.bounds
    assert high - 20.0 == pytest.approx(4.303 * 10.0 / math.sqrt(3))  # Student's t, two degrees
    assert 20.0 - low == pytest.approx(high - 20.0)


@pytest.mark.parametrize("jobs", [1, 3])
def test_no_more_processes_than_jobs_work_side_by_side(sweep_of, tmp_path, jobs):
    run(sweep_of(1, 2, 3, 4, 5, jobs=jobs))
    most = max(map(int, (tmp_path / "s" / "most").read_text().split()))
    assert 1 <= most <= jobs


def test_a_second_call_does_nothing_again(sweep_of, tmp_path):
    run(sweep_of(1, 2))
    before = calls(tmp_path)
    sweep = sweep_of(1, 2)
    assert set(run(sweep).values()) == {"done"}
    assert calls(tmp_path) == before
    assert sweep.results()[0].means == (10.0, 20.0)


def test_more_seeds_are_added_and_other_episodes_evaluate_anew(sweep_of, tmp_path):
    run(sweep_of(1))
    run(sweep_of(1, 2))
    assert calls(tmp_path).count(("train", "twm-seed1")) == 1
    run(sweep_of(1, 2, evaluate=("--seed", "4")))
    assert calls(tmp_path).count(("train", "twm-seed1")) == 1
    assert calls(tmp_path).count(("evaluate", "twm-seed1")) == 2


def test_a_run_with_other_options_is_refused_and_nothing_is_begun(sweep_of, tmp_path):
    run(sweep_of(1))
    before = calls(tmp_path)
    with pytest.raises(SettingsError, match=r"--train\.updates 9.*choose another --root"):
        run(sweep_of(1, more=("--train.updates", "9")))
    assert calls(tmp_path) == before


def test_one_that_fails_holds_up_no_other_says_why_and_is_tried_again(sweep_of, tmp_path):
    sweep = sweep_of(7, 1, 13)
    assert run(sweep) == {"twm-seed7": "failed", "twm-seed1": "done", "twm-seed13": "failed"}
    assert sweep.progress["twm-seed7"].error == "exit status 1: seed 7 always fails"
    assert sweep.progress["twm-seed13"].error == "exit status 1: no policy"
    assert sweep.results()[0].seeds == (1,)
    run(sweep_of(7, 1, 13))
    assert calls(tmp_path).count(("train", "twm-seed7")) == 2
    assert calls(tmp_path).count(("train", "twm-seed1")) == 1
    assert calls(tmp_path).count(("train", "twm-seed13")) == 1  # its training was right


def test_a_stop_ends_each_training_with_its_own_end_and_the_next_call_goes_on(sweep_of, tmp_path):
    stop, sweep = threading.Event(), sweep_of(99, 1, jobs=1)
    with sweep:

        def when_it_trains(progress):
            if progress["twm-seed99"].status.get("updates") == 1:
                stop.set()

        sweep.run(stop, when_it_trains)
        states = {name: p.state for name, p in sweep.progress.items()}
    assert states == {"twm-seed99": "stopped", "twm-seed1": "stopped"}
    status = json.loads((tmp_path / "s" / "twm-seed99" / "status.json").read_text())
    assert status == {"phase": "stopped", "updates": 2}
    assert run(sweep_of(99, 1, jobs=1)) == {"twm-seed99": "done", "twm-seed1": "done"}


def test_an_interruption_leaves_no_process_behind(sweep_of):
    sweep, pids = sweep_of(99), []

    def interrupt(progress):
        if progress["twm-seed99"].status.get("updates") == 1:
            pids.extend(p.pid for p in sweep._processes.values())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), sweep:
        sweep.run(threading.Event(), interrupt)
    (pid,) = pids
    assert subprocess.run(["kill", "-0", str(pid)], capture_output=True, check=False).returncode


def test_a_run_that_another_process_trains_is_waited_for(sweep_of, tmp_path):
    folder = tmp_path / "s" / "twm-seed1"
    folder.mkdir(parents=True)
    lock, seen = RunLock(folder), []
    lock.__enter__()

    def look(progress):
        seen.append(progress["twm-seed1"].state)
        if seen[-1] == "elsewhere" and seen.count("elsewhere") == 2:
            lock.__exit__(None, None, None)

    assert run(sweep_of(1, 2), look) == {"twm-seed1": "done", "twm-seed2": "done"}
    assert calls(tmp_path)[0] == ("train", "twm-seed2")


def test_two_sweeps_do_not_work_in_one_folder(sweep_of):
    with sweep_of(1), pytest.raises(SettingsError, match="another sweep works in"), sweep_of(1):
        pass


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"members": {"twm-seed1": {}}}'])
def test_a_damaged_record_costs_only_what_it_held(sweep_of, tmp_path, content):
    run(sweep_of(1))
    (tmp_path / "s" / NAME).write_bytes(content)
    assert run(sweep_of(1)) == {"twm-seed1": "done"}


def test_a_record_is_whole_after_every_member(sweep_of, tmp_path):
    run(sweep_of(1, 7))
    members = json.loads((tmp_path / "s" / NAME).read_text())["members"]
    assert members["twm-seed1"]["trained"] is True
    assert members["twm-seed1"]["evaluation"]["mean"] == 10.0
    assert members["twm-seed7"]["trained"] is False

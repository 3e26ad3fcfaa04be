"""What ``wm runs`` says of folders: runs of every state, damaged ones and what is no run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from wm_core import presets
from wm_core.cli.main import main
from wm_core.contract.errors import SettingsError
from wm_core.library.run_folder import TrainSettings, save_settings
from wm_core.library.run_lock import RunLock
from wm_core.library.runs import age, facts_of, list_runs


@pytest.fixture
def make_run(make_status):
    """Makes a run folder as a training leaves it, without weights."""

    def make(folder, *, preset="dreamer_v3", task="seek", phase="done", metrics="", **changes):
        folder.mkdir(parents=True)
        config = presets.make(preset, "micro")
        save_settings(TrainSettings(**dict(config), run=folder, task=task))
        make_status(phase=phase, **changes).write(folder)
        (folder / "metrics.jsonl").write_text(metrics)
        return folder

    return make


def listing(root):
    return {facts.name: facts for facts in list_runs(root)}


def everything(root):
    """Every file below ``root`` with its content and its time, to see that nothing changed."""
    return {
        str(p): (p.stat().st_mtime_ns, p.is_file() and p.read_bytes()) for p in root.rglob("*")
    }


def test_a_run_says_what_it_is_and_how_far_it_came(make_run, tmp_path):
    lines = [
        {"updates": 10, "time": 1_700_000_000.0},
        {"updates": 50, "eval/return": 9.0},
        {"updates": 90, "eval/return": 4.0},
    ]
    make_run(
        tmp_path / "a", preset="twm", metrics="".join(f"{json.dumps(line)}\n" for line in lines)
    )
    facts = listing(tmp_path)["a"]
    assert (facts.preset, facts.size, facts.task, facts.seed) == ("twm", "micro", "seek", 0)
    assert (facts.state, facts.pid) == ("done", None)
    assert (facts.updates, facts.agent_steps, facts.episodes) == (100, 2000, 7)
    assert (facts.last_return, facts.evaluated, facts.best) == (1.25, 4.0, 9.0)
    assert (facts.policy, facts.cpu_s, facts.wall_s) == (2, 1800.5, 600.0)


def test_the_status_knows_the_best_evaluation(make_run, tmp_path):
    evaluation = {"mean": 3.0, "low": 2.0, "high": 4.0, "episodes": 5, "best": {"mean": 8.0}}
    make_run(tmp_path / "a", evaluation=evaluation, metrics='{"eval/return": 7.0}\n')
    facts = listing(tmp_path)["a"]
    assert (facts.evaluated, facts.best) == (3.0, 8.0)


@pytest.mark.parametrize("phase", ["done", "stopped", "diverged", "failed"])
def test_a_run_that_ended_says_how(make_run, tmp_path, phase):
    assert facts_of(make_run(tmp_path / "a", phase=phase)).state == phase


@pytest.mark.parametrize("phase", ["starting", "collecting", "waiting", "training", "evaluating"])
def test_a_run_whose_process_is_gone_was_killed_and_one_that_holds_the_lock_is_alive(
    make_run, tmp_path, phase
):
    run = make_run(tmp_path / "a", phase=phase, waiting_for="a first step")
    assert (facts_of(run).state, facts_of(run).pid, facts_of(run).note) == ("killed", None, "")
    with RunLock(run):
        alive = facts_of(run)
    assert (alive.state, alive.pid, alive.note) == (phase, os.getpid(), "a first step")
    assert facts_of(run).state == "killed"


def test_a_run_that_begins_again_is_not_called_done(make_run, tmp_path):
    run = make_run(tmp_path / "a", phase="done")
    with RunLock(run):
        assert facts_of(run).state == "starting"


def test_folders_are_looked_into_and_those_without_a_run_are_foreign(make_run, tmp_path):
    make_run(tmp_path / "one")
    make_run(tmp_path / "sweep" / "seed-0")
    make_run(tmp_path / "sweep" / "deeper" / "seed-1")
    (tmp_path / "photos" / "2024").mkdir(parents=True)
    (tmp_path / "notes.txt").write_text("no folder")
    (tmp_path / ".git").mkdir()
    found = listing(tmp_path)
    assert list(found) == ["one", "photos", "sweep/deeper/seed-1", "sweep/seed-0"]
    assert found["photos"].state == "foreign"
    assert "no run" in found["photos"].note


def test_a_run_itself_is_listed_and_nothing_within_it(make_run, tmp_path):
    run = make_run(tmp_path / "a")
    make_run(run / "store")
    assert [facts.path for facts in list_runs(run)] == [run]


def test_links_in_a_circle_end(make_run, tmp_path):
    make_run(tmp_path / "in" / "a")
    (tmp_path / "in" / "back").symlink_to(tmp_path)
    assert "in/a" in listing(tmp_path)


DAMAGES = [
    b"",
    b"{",
    b"[1, 2]",
    b"\xff\xfe\x00",
    b'{"preset": ',
    b"null",
    b"[" * 100_000,
]


@pytest.mark.parametrize("content", DAMAGES, ids=range(len(DAMAGES)))
@pytest.mark.parametrize("name", ["settings.json", "status.json"])
def test_damaged_files_make_a_damaged_run_and_no_error(make_run, tmp_path, name, content):
    run = make_run(tmp_path / "a")
    make_run(tmp_path / "b")
    (run / name).write_bytes(content)
    found = listing(tmp_path)
    assert found["a"].state == "damaged"
    assert name in found["a"].note
    assert found["b"].state == "done"


ODD = [
    {"phase": 7, "updates": "many", "time": "now", "agent_steps": None, "evaluation": [1]},
    {"phase": ["x"], "updates": 1.5, "time": 10**400, "evaluation": {"mean": "a", "best": True}},
    {"phase": "\x1b[31mred", "last_return": {"a": 1}, "published_version": -1},
]


@pytest.mark.parametrize("odd", ODD, ids=range(len(ODD)))
def test_values_of_an_odd_kind_are_left_out(make_run, tmp_path, odd, capsys):
    run = make_run(tmp_path / "a")
    (run / "status.json").write_text(json.dumps(odd))
    (run / "settings.json").write_text(json.dumps({"preset": 3, "task": "a\x1b[2Jb", "seed": "x"}))
    (run / "metrics.jsonl").write_bytes(b'\xff{"eval/return"\n{"eval/return": "x"}\n[]\n')
    (run / "policies" / "main").mkdir(parents=True)
    (run / "policies" / "main" / "latest.json").write_text("{")
    facts = listing(tmp_path)["a"]
    assert facts.updates is None
    assert facts.best is None
    assert facts.policy is None
    assert main(["runs", str(tmp_path)]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_a_run_file_is_no_error(make_run, tmp_path):
    run = make_run(tmp_path / "a")
    for name in ("settings.json", "status.json", "metrics.jsonl"):
        (run / name).unlink()
        (run / name).mkdir()
    assert listing(tmp_path)["a"].state == "damaged"


def test_an_empty_run_folder_is_empty_not_killed(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "settings.json").write_text("{}")
    assert listing(tmp_path)["a"].state == "empty"


def test_listing_makes_and_changes_nothing(make_run, tmp_path, capsys):
    make_run(tmp_path / "a", phase="training")
    (tmp_path / "b" / "store").mkdir(parents=True)
    before = everything(tmp_path)
    assert main(["runs", str(tmp_path)]) == 0
    assert main(["runs", str(tmp_path), "--json"]) == 0
    assert everything(tmp_path) == before


@pytest.mark.parametrize("json_", [(), ("--json",)])
def test_a_folder_that_does_not_exist_is_not_made(tmp_path, capsys, json_, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runsx").mkdir()
    assert main(["runs", *json_]) == 2
    assert "did you mean 'runsx'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingsError, match="got a file"):
        list_runs(tmp_path / "file")


def names_in_order(capsys, root, *words):
    assert main(["runs", str(root), "--json", *words]) == 0
    return [json.loads(line)["name"] for line in capsys.readouterr().out.splitlines()]


def test_runs_are_sorted_and_chosen(make_run, tmp_path, capsys):
    make_run(tmp_path / "a", updates=5, last_return=-2.0, time=30.0)
    make_run(tmp_path / "b", updates=50, last_return=None, time=10.0, task="CartPole-v1")
    make_run(tmp_path / "c", updates=20, last_return=7.0, time=20.0, preset="twm", phase="stopped")
    assert names_in_order(capsys, tmp_path) == ["a", "b", "c"]
    assert names_in_order(capsys, tmp_path, "--sort", "updates") == ["b", "c", "a"]
    assert names_in_order(capsys, tmp_path, "--sort", "return") == ["c", "a", "b"]
    assert names_in_order(capsys, tmp_path, "--sort", "when") == ["a", "c", "b"]
    assert names_in_order(capsys, tmp_path, "--task", "CartPole") == ["b"]
    assert names_in_order(capsys, tmp_path, "--preset", "twm") == ["c"]
    assert names_in_order(capsys, tmp_path, "--state", "stopped") == ["c"]
    with RunLock(tmp_path / "b"):
        assert names_in_order(capsys, tmp_path, "--state", "alive") == ["b"]


def test_json_holds_no_number_that_json_does_not_know(make_run, tmp_path, capsys):
    run = make_run(tmp_path / "a")
    text = (run / "status.json").read_text().replace("1.25", "NaN")
    (run / "status.json").write_text(text)
    assert main(["runs", str(tmp_path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert facts["last_return"] is None
    assert facts["date"].startswith("2023-11-")


@pytest.mark.parametrize("columns", [80, 140])
def test_the_table_fits_the_terminal(make_run, tmp_path, capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("FORCE_COLOR", "1")
    make_run(tmp_path / ("long-name-" * 5), preset="transdreamer", task="a_module:Task-v0")
    make_run(tmp_path / "b", agent_steps=123_456_789, updates=10**7, last_return=-123456.789)
    assert main(["runs", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    plain = "".join(part.partition("m")[2] for part in f"\x1b[m{out}".split("\x1b["))
    assert all(len(line) <= columns for line in plain.splitlines())
    assert "123M" in plain


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (300, "5 min"), (7200, "2 h"), (400_000, "5 d"), (-9, "0 s")],
)
def test_an_age_is_said_in_one_unit(seconds, words):
    assert age(1000.0, 1000.0 + seconds) == words


def test_an_unknown_age_is_empty():
    assert age(None) == ""


def test_paths_are_given_whole(make_run, tmp_path):
    make_run(tmp_path / "a")
    assert list_runs(tmp_path)[0].as_json()["path"] == str(tmp_path / "a")
    assert isinstance(list_runs(str(tmp_path))[0].path, Path)

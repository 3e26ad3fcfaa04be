"""How far a run is, in words."""

import io

from rich.console import Console

from wm_core.cli.progress import ProgressView
from wm_core.training.status import Rate, Status


def status(**changes) -> Status:
    values = {
        "phase": "training",
        "updates": 50,
        "updates_goal": 150,
        "updates_per_s": 2.0,
        "agent_steps": 640,
        "agent_steps_goal": None,
        "agent_steps_per_s": 20.0,
        "published_version": 3,
        "episodes": 4,
        "last_return": 12.5,
        "time": 0.0,
    }
    return Status(**values | changes)


def test_without_a_terminal_a_line_says_rates_and_time_left(capsys):
    with ProgressView() as view:
        view.show(status())
    said = capsys.readouterr().err.splitlines()[0]
    for part in ("update 50/150 2.00/s", "step 640 20/s", "0:50 left", "return 12.5", "policy 3"):
        assert part in said


def test_the_last_line_is_written_once(capsys):
    """Whether it came as a line already, or within the ten seconds after one."""
    with ProgressView() as view:
        view.show(status())
    assert capsys.readouterr().err.count("\n") == 1
    with ProgressView() as view:
        for updates in (50, 60, 70):
            view.show(status(updates=updates))
    said = capsys.readouterr().err.splitlines()
    assert [line.split()[2] for line in said] == ["50/150", "70/150"]


def test_a_run_by_the_clock_says_what_it_has_used_of_its_minutes(capsys):
    with ProgressView() as view:
        view.show(status(cpu_s=90.0, cpu_s_goal=1800.0))
    said = capsys.readouterr().err
    assert "update 50 2.00/s" in said
    assert "1:30/30:00 of CPU" in said


def test_what_an_evaluation_found_is_in_the_line(capsys):
    with ProgressView() as view:
        view.show(status(evaluation={"error": "it broke"}))
        view.show(status(evaluation={"mean": 118.44}, phase="done"))
    first, last = capsys.readouterr().err.splitlines()
    assert "evaluated" not in first
    assert "return 12.5 · evaluated 118 · policy 3" in last


def test_quiet_says_nothing(capsys):
    with ProgressView(quiet=True) as view:
        view.show(status())
        view.say("hello")
    assert capsys.readouterr().err == ""


def test_on_a_terminal_one_line_fits_80_columns(monkeypatch):
    out = io.StringIO()
    wide = Console(file=out, force_terminal=True, width=80, color_system=None)
    monkeypatch.setattr("wm_core.cli.progress.Console", lambda stderr: wide)
    with ProgressView() as view:
        view.show(status())
    assert "update 50/150" in out.getvalue()
    assert all(len(line) <= 120 for line in out.getvalue().split("\n"))


def test_rate_is_of_the_last_seconds_only():
    rate = Rate()
    rate.at(0.0, 0)
    assert rate.at(10.0, 100) == 10.0
    rate.at(100.0, 100)  # nothing for a long time
    assert rate.at(110.0, 150) < 5.0

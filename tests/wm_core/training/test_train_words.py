"""What ``wm train`` says: before it starts when it will end, and afterwards what ended it."""

from __future__ import annotations

import pytest

from wm_core.cli.main import main
from wm_core.cli.progress import ProgressView
from wm_core.cli.train import named, reporter
from wm_core.training.status import Status


def status(time, updates):
    return Status(
        phase="training",
        updates=updates,
        updates_goal=100_000,
        updates_per_s=1.0,
        agent_steps=updates,
        agent_steps_goal=None,
        agent_steps_per_s=1.0,
        published_version=-1,
        episodes=0,
        last_return=None,
        time=time,
    )


@pytest.fixture
def said(toy, tiny, tmp_path, capsys):
    """Train with more options; returns what was said on standard error."""

    def train(*more):
        words = [word for word in tiny if word != "--quiet"]
        run = ["--task", toy, "--run", str(tmp_path / "run")]
        assert main(["train", *run, *words, "--no-publish", *more]) == 0
        return capsys.readouterr().err

    return train


def test_a_run_says_when_it_will_end_what_ended_it_and_what_can_be_done_next(said, tmp_path):
    text = said("--train.updates", "3", "--train.steps", "2e3")
    assert "it ends after 3 updates, with 2,000 agent steps, whichever is first" in text
    assert "done at update 3 and step " in text
    assert ": 3 updates are done; checkpoint " in text
    assert f"longer:   wm train --run {tmp_path / 'run'} --resume --train.updates 6\n" in text
    assert "--episodes 10 --checkpoint\n" in text  # nothing that has learnt was published
    text = said("--resume", "--train.updates", "6")
    assert "done at update 6 " in text


def test_a_run_of_size_micro_that_is_told_nothing_says_that_half_an_hour_is_its_end(said):
    text = said("--train.minutes", "0.001")
    assert "it ends after 0.001 minutes of CPU time" in text
    assert "0.001 minutes of CPU time are used" in text
    assert "--train.minutes 0.002" in text


def test_how_long_it_takes_is_said_once_on_the_way(capsys):
    with ProgressView() as view:
        report = reporter(view)
        for second in (0, 1, 31, 41):
            report(status(second, second))
    text = capsys.readouterr().err
    assert text.count("about 28 h to go at this rate; --train.minutes 30 ends it sooner") == 1


def test_the_options_of_a_command_line_have_dotted_names():
    words = ["--train.steps=5", "--run", "x", "--optim.lr", "-1", "--follow"]
    assert named(words) == {"train.steps", "run", "optim.lr", "follow"}

"""A policy whose file does not answer as its network stays unpublished, and training goes on."""

from __future__ import annotations

import logging

import pytest

from wm_core.cli.main import main
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.library import hooks
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.training import checkpoint
from wm_core.training.publisher import FIRST_PUBLISH, Publisher


class Writer:
    """Writes publications down, and refuses those after some numbers of updates."""

    def __init__(self, *refused: int) -> None:
        self.refused, self.written = refused, []

    def __call__(self, due) -> None:
        if due.updates in self.refused:
            raise PolicyRefused("golden step 59: 'action' differs")
        self.written.append((due.version, due.parent, due.updates))


def test_a_refused_policy_leaves_its_number_to_the_next(caplog):
    writer = Writer(100)
    publisher = Publisher(writer, 100)
    publisher.publish(0, 10)
    with caplog.at_level(logging.WARNING):
        publisher.publish(100, 20)
    assert "after 100 updates is not published: golden step 59" in caplog.text
    assert "robots keep version 0" in caplog.text
    assert (publisher.version, publisher.updates) == (0, 0)
    assert not publisher.due(199)
    assert publisher.due(200)
    publisher.publish(200, 30)
    assert writer.written == [(0, -1, 0), (1, 0, 200)]
    assert (publisher.version, publisher.updates) == (1, 200)


def test_a_run_that_ends_after_a_refused_policy_tries_again():
    publisher = Publisher(Writer(100, 103), 100)
    publisher.publish(0, 10)
    publisher.publish(100, 20)
    assert publisher.due_at_end(100)
    with pytest.raises(PolicyRefused, match=r"after 103 updates is not published.*--resume"):
        publisher.publish(103, 20, last=True)


def test_the_first_policy_of_a_run_must_be_right():
    publisher = Publisher(Writer(0), 100)
    with pytest.raises(PolicyRefused, match="golden step 59"):
        publisher.publish(0, 10)


@pytest.fixture
def refusing(monkeypatch):
    """Refuses some of the policies that a run makes, by their place in the order."""

    def refuse(*places: int) -> None:
        real, made = hooks.check_golden, []

        def check(*given, **named):
            made.append(len(made))
            if made[-1] in places:
                raise PolicyRefused("golden step 59: 'action' differs by 1.1e-05 of its scale")
            return real(*given, **named)

        monkeypatch.setattr(hooks, "check_golden", check)

    return refuse


def trained(tmp_path, tiny, toy, updates: int) -> int:
    """The exit status of a run that publishes at 0, 50, 100, ... updates."""
    every = ("--train.publish-every", str(FIRST_PUBLISH), "--train.video-every", "0")
    words = ["--task", toy, "--run", str(tmp_path / "run"), "--train.updates", str(updates)]
    return main(["train", *words, *tiny, *every])


def test_training_goes_on_after_a_refused_policy(tmp_path, tiny, toy, refusing):
    refusing(1)
    assert trained(tmp_path, tiny, toy, 2 * FIRST_PUBLISH) == 0
    repository = PolicyRepository(tmp_path / "run" / "policies")
    folders = [PolicyFolder(repository.folder(version)) for version in repository.versions()]
    made = [folder.read_manifest() for folder in folders]
    assert [(m.version, m.learner_updates) for m in made] == [(0, 0), (1, 2 * FIRST_PUBLISH)]


def test_a_run_whose_last_policy_is_refused_says_so_and_keeps_its_checkpoint(
    tmp_path, tiny, toy, refusing, capsys
):
    refusing(1, 2)
    assert trained(tmp_path, tiny, toy, FIRST_PUBLISH) == 2
    said = capsys.readouterr().err
    assert f"the policy after {FIRST_PUBLISH} updates is not published" in said
    assert "--resume" in said
    run = tmp_path / "run"
    assert checkpoint.newest(run)[1]["published_version"] == 0
    more = ("--train.updates", str(2 * FIRST_PUBLISH))
    assert main(["train", "--run", str(run), "--resume", *more]) == 0
    assert PolicyRepository(run / "policies").latest().learner_updates > FIRST_PUBLISH

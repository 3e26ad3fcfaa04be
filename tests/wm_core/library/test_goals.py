"""When a training ends: by default, in words before it starts, and in words afterwards."""

from pathlib import Path

import pytest

from wm_core import presets
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.library.changes import with_changes
from wm_core.library.goals import MICRO_MINUTES, ending, goals_in_words, with_goal
from wm_core.library.run_folder import TrainSettings, save_settings
from wm_core.training import checkpoint

RUN = Path("runs/x y")
CAMERA = Spec(action=ActionSpec(low=(-1.0,), high=(1.0,)))
JOINTS = CAMERA.model_copy(update={"images": {}, "vectors": {"joints": VectorSpec(size=2)}})


def settings(size="micro", **changes):
    start = TrainSettings(**dict(presets.make("dreamer_v3", size)), run=RUN, task="seek")
    return with_changes(start, changes)


def test_micro_ends_after_half_an_hour_where_nothing_is_said():
    assert with_goal(settings(), {"task", "run"}).train.minutes == MICRO_MINUTES
    assert settings().train.minutes is None  # and the preset itself stays as it is


@pytest.mark.parametrize(
    "named", ["train.steps", "train.updates", "train.minutes", "follow", "store"]
)
def test_who_says_when_it_ends_is_not_cut_short(named):
    assert with_goal(settings(), {named}).train.minutes is None


def test_other_sizes_and_settings_that_have_minutes_stay_as_they_are():
    assert with_goal(settings("paper"), set()).train.minutes is None
    assert with_goal(settings(**{"train.minutes": 5}), set()).train.minutes == 5


@pytest.mark.parametrize("changes", [{"train.steps": 900}, {"train.updates": 7}])
def test_a_goal_that_was_taken_from_elsewhere_holds(changes):
    assert with_goal(settings(**changes), set()).train.minutes is None


def test_a_run_that_exists_keeps_its_goal(tmp_path):
    start = settings().model_copy(update={"run": tmp_path})
    assert with_goal(start, set()).train.minutes == MICRO_MINUTES
    save_settings(start)
    assert with_goal(start, set()).train.minutes is None


def test_minutes_that_nobody_asked_for_do_not_end_a_run_that_is_prolonged(tmp_path):
    start = settings(**{"train.minutes": MICRO_MINUTES}).model_copy(update={"run": tmp_path})
    save_settings(start)
    assert with_goal(start, {"train.steps", "resume"}).train.minutes is None
    assert with_goal(start, {"train.updates", "resume"}).train.minutes is None
    assert with_goal(start, {"resume"}).train.minutes == MICRO_MINUTES
    assert with_goal(start, {"train.steps", "train.minutes"}).train.minutes == MICRO_MINUTES
    other = with_changes(start, {"train.minutes": 7})
    assert with_goal(other, {"train.steps", "resume"}).train.minutes == 7


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "it ends with 500,000 agent steps"),
        (
            {"train.minutes": 30},
            "it ends after 30 minutes of CPU time, with 500,000 agent steps, whichever is first",
        ),
        ({"follow": True}, "it goes on until it is stopped"),
        ({"follow": True, "train.updates": 2000}, "it ends after 2,000 updates"),
        ({"store": "s"}, "it ends when each stored step was learnt from 256 times"),
        ({"store": "s", "train.updates": 9}, "it ends after 9 updates"),
    ],
)
def test_before_it_starts_a_run_says_when_it_will_end(changes, words):
    assert goals_in_words(settings(**changes)) == words


@pytest.mark.parametrize(
    ("changes", "end", "reason", "longer"),
    [
        ({"train.updates": 100}, {}, "100 updates are done", " --train.updates 200"),
        (
            {"train.minutes": 30},
            {"cpu_s_goal": 1800.0},
            "30 minutes of CPU time are used",
            " --train.minutes 60",
        ),
        (
            {"train.steps": 2000, "train.minutes": 90},
            {"cpu_s_goal": 5400.0},
            "2,000 agent steps are collected and learnt from",
            " --train.steps 4000",
        ),
        (
            {"store": "s"},
            {},
            "each stored step was learnt from 256 times",
            " --train.updates 200",
        ),
    ],
)
def test_a_run_says_what_ended_it_and_how_it_is_prolonged(
    changes, end, reason, longer, make_status
):
    found = ending(settings(**changes), make_status(**end), stopped=False)
    assert found.reason == reason
    assert found.commands[0] == ("longer", f"wm train --run 'runs/x y' --resume{longer}")


def test_a_stopped_run_goes_on_by_resume_alone(make_status):
    found = ending(settings(**{"train.updates": 100}), make_status(), stopped=True)
    assert found.reason == "it was stopped"
    assert found.commands[0] == ("go on", "wm train --run 'runs/x y' --resume")


@pytest.mark.parametrize(
    ("changes", "end", "network"),
    [
        ({}, {}, ""),
        ({}, {"updates": 30, "published_version": 1}, ""),  # as a short run does at its end
        ({}, {"updates": 30, "published_version": 0}, " --checkpoint"),
        ({}, {"updates": 0, "published_version": 5}, " --checkpoint"),  # above older policies
        ({"publish": False}, {"published_version": -1}, " --checkpoint"),
    ],
)
def test_a_run_that_published_nothing_learnt_is_measured_by_its_checkpoint(
    changes, end, network, make_status
):
    found = dict(ending(settings(**changes), make_status(**end), stopped=False).commands)
    assert found["measure"] == f"wm evaluate --run 'runs/x y' --episodes 10{network}"


@pytest.mark.parametrize(
    ("spec", "changes", "look"),
    [
        (CAMERA, {}, "wm show --run"),
        (CAMERA, {"world.decoder.kind": "none", "world.objective": "barlow"}, "wm ui --root"),
        (JOINTS, {}, "wm ui --root"),
    ],
    ids=["pictures", "no decoder", "no camera"],
)
def test_what_is_proposed_for_a_look_works(spec, changes, look, make_status, tmp_path):
    run = settings(**changes).model_copy(update={"run": tmp_path})
    checkpoint.save(tmp_path, {"spec": spec.model_dump(mode="json")}, updates=100, keep=1)
    found = dict(ending(run, make_status(), stopped=False).commands)
    assert found["look"] == f"{look} {tmp_path}"


def test_a_policy_that_was_published_before_the_behaviour_learnt_is_not_measured(make_status):
    """The first 800 updates of this preset train the world model alone."""
    start = TrainSettings(**dict(presets.make("world_models", "micro")), run=RUN, task="seek")
    for updates, network in ((800, " --checkpoint"), (801, "")):
        end = make_status(updates=updates, published_version=3)
        found = dict(ending(start, end, stopped=False).commands)
        assert found["measure"] == f"wm evaluate --run 'runs/x y' --episodes 10{network}"


def test_what_has_no_task_is_not_proposed_for_evaluation(make_status):
    found = dict(ending(settings(task=""), make_status(), stopped=False).commands)
    assert "measure" not in found

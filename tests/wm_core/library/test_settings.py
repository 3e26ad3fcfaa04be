"""Settings in Python are those of the command line, nested or dotted; a mistake is named."""

import os
import threading
from pathlib import Path

import pytest
import torch

from wm_core.cli.settings import parse
from wm_core.cli.train import _start
from wm_core.contract.errors import SettingsError
from wm_core.library.changes import names_of_changes, with_changes
from wm_core.library.run_folder import TrainSettings, load_settings, run_id_of, save_settings
from wm_core.library.train import first_settings, run_training

RUN = Path("runs/of_a_test")
START = first_settings(RUN, preset="twm", size="micro", resume=False)


def test_python_and_the_command_line_say_the_same():
    words = [
        *("--preset", "twm", "--run", str(RUN), "--task", "seek", "--train.updates", "7"),
        *("--world.transformer.window", "16", "--no-publish"),
    ]
    typed = parse(TrainSettings, words, verb="train", default=_start(words))
    nested = with_changes(
        START,
        {
            "task": "seek",
            "publish": False,
            "train": {"updates": 7},
            "world": {"transformer": {"window": 16}},
        },
    )
    dotted = with_changes(
        START,
        {
            "task": "seek",
            "publish": False,
            "train.updates": 7,
            "world": {"transformer.window": 16},
        },
    )
    assert typed == nested == dotted
    assert START.train.updates is None  # what was changed is a copy


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": {"updats": 1}}, "unknown setting of train 'updats'; did you mean 'updates'"),
        ({"world.transformer.windo": 1}, "did you mean 'window'"),
        ({"updates": 1}, "unknown setting 'updates'; did you mean 'train.updates'"),
        ({"world.heads.bins": 4}, "^world.heads.bins: expected an odd number of bins, got 4$"),
        ({"world.prior": "mdn"}, "^world.prior mdn needs world.latent gaussian$"),
        ({"tusk": "seek"}, "unknown setting 'tusk'; did you mean 'task'"),
        ({"train.updates": "many"}, "train.updates: .*got 'many'"),
        ({"train": {"updates": 0, "steps": 0}}, "train.steps.*train.updates"),
    ],
)
def test_a_mistake_is_named_and_the_nearest_setting_with_it(changes, message):
    with pytest.raises(SettingsError, match=message):
        with_changes(START, changes)


@pytest.mark.parametrize(
    ("old", "new", "value"),
    [
        ("behavior.critic", "behavior.critic.kind", "symlog"),
        ("behavior.entropy", "behavior.entropy.scale", 0.5),
        ("world.encoder", "world.encoder.kind", "k4s2"),
        ("world.decoder", "world.decoder.kind", "joint"),
    ],
)
def test_an_old_name_that_is_a_group_now_sets_one_setting_of_it(old, new, value):
    start = with_changes(START, {"behavior.critic.layers": 7, "behavior.entropy.target": 0.7})
    start = with_changes(start, {"world.encoder.depth": 7, "world.decoder.reads": "stoch"})
    room, _, name = old.partition(".")
    want = with_changes(start, {new: value})
    assert with_changes(start, {old: value}) == with_changes(start, {room: {name: value}}) == want
    assert want.behavior.critic.layers == want.world.encoder.depth == 7


def test_a_run_uses_all_cores_but_one_unless_told_otherwise(tmp_path):
    """The same from Python as from the command line; the process keeps its own number."""

    class Recording(threading.Event):
        def is_set(self):
            seen.append(torch.get_num_threads())
            return True

    seen, before, cores = [], torch.get_num_threads(), os.cpu_count()
    settings = {"task": "CartPole-v1", "publish": False, "quiet": True}
    try:
        torch.set_num_threads(cores + 2)
        for number, threads in enumerate((None, cores + 1)):
            start = first_settings(
                tmp_path / f"{number}", preset="dreamer_v3", size="micro", resume=False
            )
            run_training(with_changes(start, settings | {"threads": threads}), Recording())
            assert set(seen) == {threads or max(1, cores - 1)}
            assert torch.get_num_threads() == cores + 2
            seen.clear()
    finally:
        torch.set_num_threads(before)


def test_a_run_folder_keeps_its_settings_and_its_id(tmp_path):
    settings = with_changes(START, {"run": tmp_path / "run", "task": "seek"})
    run_id = save_settings(settings)
    assert load_settings(settings.run) == settings
    assert run_id_of(settings.run) == run_id == save_settings(settings)
    assert run_id_of(tmp_path) == ""
    with pytest.raises(SettingsError, match="did you mean 'run'"):
        load_settings(tmp_path / "rum")


def test_changes_have_dotted_names():
    assert names_of_changes({"train": {"steps": 1}, "world.units": 2, "task": "seek"}) == {
        "train.steps",
        "world.units",
        "task",
    }

"""Settings in Python are those of the command line, nested or dotted; a mistake is named."""

from pathlib import Path

import pytest

from wm_core.cli.settings import parse
from wm_core.cli.train import _start
from wm_core.contract.errors import SettingsError
from wm_core.library.changes import with_changes
from wm_core.library.run_folder import TrainSettings, load_settings, run_id_of, save_settings
from wm_core.library.train import first_settings

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
        ({"train": {"updats": 1}}, "unknown setting.train 'updats'; did you mean 'updates'"),
        ({"world.transformer.windo": 1}, "did you mean 'window'"),
        ({"tusk": "seek"}, "unknown setting 'tusk'; did you mean 'task'"),
        ({"train.updates": "many"}, "train.updates: .*got 'many'"),
        ({"train": {"updates": 0, "steps": 0}}, "train.steps.*train.updates"),
    ],
)
def test_a_mistake_is_named_and_the_nearest_setting_with_it(changes, message):
    with pytest.raises(SettingsError, match=message):
        with_changes(START, changes)


def test_a_run_folder_keeps_its_settings_and_its_id(tmp_path):
    settings = with_changes(START, {"run": tmp_path / "run", "task": "seek"})
    run_id = save_settings(settings)
    assert load_settings(settings.run) == settings
    assert run_id_of(settings.run) == run_id == save_settings(settings)
    assert run_id_of(tmp_path) == ""
    with pytest.raises(SettingsError, match="did you mean 'run'"):
        load_settings(tmp_path / "rum")

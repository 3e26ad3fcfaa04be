"""A refused start changes no byte, and a resumed run changes only what can change."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from wm_core.cli.main import main
from wm_core.config import Config
from wm_core.contract.errors import SettingsError
from wm_core.library.changes import with_changes
from wm_core.library.resume import RULES, check_changes, flat, rule_of
from wm_core.library.run_folder import TrainSettings
from wm_core.library.run_lock import LOCK_NAME, RunLock
from wm_core.store.ledger import LEDGER_NAME
from wm_core.training import checkpoint

TOY, OTHER = "wm_toy_dot:WmDot-v0", "wm_toy_wide:WmWide-v0"
WIDE = f"""
import gymnasium
import numpy as np
from gymnasium import spaces
from wm_toy_dot import Dot


class Wide(Dot):
    action_space = spaces.Box(-1.0, 1.0, (1,), np.float32)


gymnasium.register({OTHER.split(":")[1]!r}, Wide)
"""


@pytest.fixture(scope="module")
def run_of(train_toy):
    return train_toy("--train.steps", "128", "--no-publish")


@pytest.fixture
def folder(run_of, toy, toy_folder, tmp_path, monkeypatch) -> Path:
    """A working folder with a finished run, ``run``, and whatever a start may be refused for."""
    (toy_folder / "wm_toy_wide.py").write_text(WIDE)
    shutil.copytree(run_of, tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "wrong.json").write_text("{}")
    (tmp_path / "wrong.yaml").write_text("[]")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes | None]:
    """Every path below ``folder`` with its bytes; None for a folder."""
    return {
        str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
    }


FRESH = ("--run", "new/run", "--no-publish")
AGAIN = ("--run", "run", "--resume")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        # starts of a new run
        (FRESH, "expected a --task"),
        ((*FRESH, "--task", "WmNoSuch-v0"), "unknown task"),
        ((*FRESH, "--task", TOY, "--size", "mikro"), "did you mean 'micro'"),
        ((*FRESH, "--task", TOY, "--spec", "wrong.json"), "--spec wrong.json"),
        ((*FRESH, "--task", TOY, "--spec", "nowhere.json"), "--spec nowhere.json"),
        ((*FRESH, "--follow", "--spec", "wrong.yaml"), "wrong.yaml"),
        ((*FRESH, "--store", "runn/store"), "unknown store"),
        ((*FRESH, "--follow", "--store", "runn/store"), "unknown store"),
        ((*FRESH, "--store", "run"), "did you mean run/store"),
        ((*FRESH, "--store", "empty"), "nothing to learn from"),
        ((*FRESH, "--store", "run/store", "--task", OTHER), "bounds of action 0"),
        ((*FRESH, "--store", "run/store", "--task", "CartPole-v1"), "another spec"),
        (("--run", "new", "--task", TOY, "--policy-keys", "empty"), "empty"),
        (("--run", "wrong.json", "--task", TOY), "expected a folder"),
        (("--run", "run", "--task", TOY), "go on with --resume"),
        # of a run that is there
        ((*AGAIN, "--task", OTHER), f"--task (this run has {TOY}, got {OTHER})"),
        ((*AGAIN, "--seed", "7"), "--seed (this run has 0, got 7)"),
        ((*AGAIN, "--size", "12m"), "--size (this run has micro, got 12m)"),
        ((*AGAIN, "--preset", "r2dreamer"), "--preset (this run has dreamer_v3"),
        ((*AGAIN, "--world.gru.deter", "32"), "--world.gru.deter (this run has 16, got 32)"),
        ((*AGAIN, "--behavior.actor.layers", "2"), "--behavior.actor.layers (this run has 3"),
        ((*AGAIN, "--optim.kind", "adam"), "--optim.kind (this run has laprop, got adam)"),
        ((*AGAIN, "--optim.actor-lr", "1e-3"), "--optim.actor-lr (this run has none"),
        ((*AGAIN, "--env.kwargs", "n=3"), "--env.kwargs (this run has {}, got {'n': 3})"),
        ((*AGAIN, "--env.time-limit", "9"), "--env.time-limit (this run has none, got 9)"),
        ((*AGAIN, "--replay.batch", "2"), "--replay.batch (this run has 4, got 2)"),
        ((*AGAIN, "--store", "run/store"), "--store (this run has none"),
        (("--run", "ran", "--resume"), "did you mean 'run'"),
    ],
)
def test_a_refused_start_changes_no_byte(args, said, folder, tiny, capsys):
    before = tree(folder)
    fresh = tiny if "--resume" not in args else ("--quiet", "--device", "cpu")
    assert main(["train", *args, *fresh]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert tree(folder) == before


KILLED = """
import os, signal, sys
from pathlib import Path
from wm_core.store.ledger import Ledger
Ledger(Path(sys.argv[1])).mark_damaged(10**6, "noted just before the kill")
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("train", *AGAIN, "--seed", "7"), 2),
        (("train", "--run", "run", "--task", TOY), 2),
        (("info", "run"), 0),
        (("info", "run/store"), 0),
        (("runs", "."), 0),
    ],
)
def test_neither_a_refused_start_nor_a_look_changes_what_a_kill_left(args, code, folder):
    """The files of the ledger's log, too, which its next reader would like to use."""
    ledger = folder / "run" / "store" / LEDGER_NAME
    ended = subprocess.run([sys.executable, "-c", KILLED, str(ledger)], timeout=60, check=False)
    assert ended.returncode == -signal.SIGKILL
    (folder / "run" / LOCK_NAME).write_text("12345\n")
    before = tree(folder)
    assert {"run/store/ledger.sqlite-shm", "run/store/ledger.sqlite-wal"} <= before.keys()
    assert main([*args]) == code
    assert tree(folder) == before


def test_a_run_that_has_ended_leaves_a_ledger_in_one_file(run_of):
    assert [path.name for path in (run_of / "store").glob("ledger.*")] == ["ledger.sqlite"]


def test_two_trainings_of_one_run_are_refused(folder, capsys):
    before = tree(folder)
    with RunLock(folder / "run"):
        assert main(["train", *AGAIN]) == 2
    assert "already" in capsys.readouterr().err
    assert tree(folder) == before


def test_a_run_goes_on_after_refused_starts_and_keeps_the_settings_that_were(folder, capsys):
    for wrong in (("--seed", "7"), ("--task", OTHER), ("--world.units", "8")):
        assert main(["train", *AGAIN, *wrong]) == 2
    assert main(["train", *AGAIN]) == 0
    assert not list((folder / "run").glob("settings.*.json"))
    assert main(["train", *AGAIN, "--train.steps", "192"]) == 0
    older = json.loads((folder / "run" / "settings.1.json").read_text())
    newer = json.loads((folder / "run" / "settings.json").read_text())
    assert (older["train"]["steps"], newer["train"]["steps"]) == (128, 192)
    assert older["about"]["run_id"] == newer["about"]["run_id"]
    _, state = checkpoint.newest(folder / "run")
    assert state["agent_steps"] >= 192


def test_the_learning_rate_of_a_resume_takes_effect(folder):
    def weights():
        state = checkpoint.newest(folder / "run")[1]["learner"]["agent"]
        return {
            k: v.clone()
            for k, v in state.items()
            if k.startswith("world.") and "variances" not in k
        }

    before = weights()
    more = ("--train.updates", "80", "--train.steps", "192")
    assert main(["train", *AGAIN, *more, "--optim.lr", "1e-30"]) == 0
    after = weights()
    assert checkpoint.newest(folder / "run")[1]["learner"]["updates"] > 64
    largest = max(float((before[k] - after[k]).abs().max()) for k in before)
    assert largest < 1e-20


def test_the_replay_ratio_of_a_resume_takes_effect(folder):
    steps = checkpoint.newest(folder / "run")[1]["agent_steps"]
    assert main(["train", *AGAIN, "--train.replay-ratio", "20"]) == 0
    _, state = checkpoint.newest(folder / "run")
    assert state["agent_steps"] == steps
    assert state["learner"]["updates"] == 20 * steps // (4 * 8)


def test_the_weight_of_the_entropy_may_change(small):
    settings = TrainSettings(**dict(small("dreamer_v3").config), run=Path("run"))
    other = with_changes(settings, {"behavior.entropy.scale": 0.5})
    check_changes(settings.model_dump(mode="json"), other)


def test_a_weight_of_the_entropy_that_adapts_stays_and_its_target_may_change(small):
    """The checkpoint holds what it has adapted to, and takes the place of the setting."""
    before, changed = small("daydreamer"), {"target": 0.7}
    settings = TrainSettings(**dict(before.config), run=Path("run"))
    saved = settings.model_dump(mode="json")
    other = with_changes(settings, {"behavior.entropy.scale": 0.5})
    with pytest.raises(SettingsError, match=r"entropy.scale .*began with 1\.0, got 0\.5.*target"):
        check_changes(saved, other)
    check_changes(saved, with_changes(settings, {"behavior.entropy": changed}))
    resumed = small("daydreamer", behavior={"entropy": changed}).agent()
    resumed.load_state_dict(before.agent().state_dict())
    assert resumed.behavior.entropy_scale.target == 0.7


def test_every_setting_has_a_rule_and_every_rule_a_setting():
    settings = TrainSettings(run=Path("run"))
    names = flat(settings.model_dump(mode="json"))
    for name in names:
        rule_of(name)
    groups = {name[:i] for name in names for i, c in enumerate(name) if c == "."} | {*names}
    assert RULES.keys() <= groups
    assert {*Config.model_fields} <= {name.partition(".")[0] for name in RULES}

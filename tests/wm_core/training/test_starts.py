"""A run begins from a settings file, from another run's weights, or from a store."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
import torch

from wm_core.agents.agent import AgentCore
from wm_core.cli.main import main
from wm_core.contract.errors import SettingsError
from wm_core.library.init_from import NAME, origin_of, take_weights
from wm_core.library.run_folder import TrainSettings
from wm_core.library.settings_file import read_settings_file
from wm_core.library.sources import find_experience
from wm_core.library.train import first_settings
from wm_core.presets.micro import merged
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training import checkpoint
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env, spec_of
from wm_core.world.settings import WorldConfig

TOY = "wm_toy_dot:WmDot-v0"


@pytest.fixture(scope="module")
def source(train_toy) -> Path:
    return train_toy("--train.steps", "128", "--no-publish", "--seed", "3")


def weights(run: Path) -> dict[str, torch.Tensor]:
    """The weights in the newest checkpoint of ``run``."""
    state = checkpoint.newest(run)[1]["learner"]["agent"]
    return {k: v for k, v in state.items() if isinstance(v, torch.Tensor)}


def trained(run: Path) -> checkpoint.Trained:
    return checkpoint.load_agent(run)


# ---------------------------------------------------------------------- settings files


def test_a_file_sets_what_the_command_line_leaves_open(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(
        "preset: twm\ntrain: {replay-ratio: 7, steps: 1e4}\nworld.units: 32\noptim: {lr: 1e-3}\n"
    )
    start = first_settings(tmp_path / "run", config_file=file)
    assert (start.preset, start.size, start.world.units) == ("twm", "micro", 32)
    assert (start.train.replay_ratio, start.train.steps, start.optim.lr) == (7.0, 10_000, 1e-3)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("train: {replay_rato: 7}", "replay_rato.*did you mean 'replay_ratio'"),
        ("trian: {steps: 7}", "'trian'; did you mean 'train'"),
        ("units: 7", "did you mean .*'world.units'"),
        ("train: {steps: -4}", "train.steps: .*got -4"),
        ("train: {steps: many}", "train.steps: .*got 'many'"),
        ("[1, 2]", "expected settings by name"),
        ("a: [", "expected YAML"),
    ],
)
def test_a_mistake_in_a_file_names_the_file_the_key_and_the_nearest(text, said, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=f"--config {file}: .*{said}") as refused:
        first_settings(tmp_path / "run", config_file=file)
    assert "\n" not in str(refused.value)


def test_a_file_that_is_not_there_or_for_another_preset_is_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("preset: twm")
    with pytest.raises(SettingsError, match=r"did you mean 'mine.yaml'"):
        read_settings_file(tmp_path / "mime.yaml")
    with pytest.raises(SettingsError, match="expected a settings file or the folder of a run"):
        read_settings_file(tmp_path)
    with pytest.raises(SettingsError, match="is for preset twm, got --preset dreamer_v1"):
        first_settings(tmp_path / "run", preset="dreamer_v1", config_file=file)


def test_the_settings_of_a_run_come_back_and_give_the_same_run(source, toy, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", "--run", str(run), "--config", str(source)]) == 0
    old, new = (json.loads((r / "settings.json").read_text()) for r in (source, run))
    assert {k: v for k, v in old.items() if k not in ("run", "about")} == {
        k: v for k, v in new.items() if k not in ("run", "about")
    }
    assert old["about"]["run_id"] != new["about"]["run_id"]
    ours, theirs = weights(run), weights(source)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    file = tmp_path / "seed.yaml"
    file.write_text("seed: 9")
    assert main(["train", "--run", str(run), "--resume", "--config", str(file)]) == 2
    assert "--seed (this run has 3, got 9)" in capsys.readouterr().err


# ---------------------------------------------------------------------- other runs' weights


def test_the_version_of_an_origin_follows_an_at_sign(tmp_path):
    assert origin_of("runs/a@best") == (Path("runs/a"), "best")
    assert origin_of("runs/a@300") == (Path("runs/a"), "300")
    assert origin_of("runs/a") == (Path("runs/a"), "newest")
    (tmp_path / "me@home").mkdir()
    assert origin_of(str(tmp_path / "me@home")) == (tmp_path / "me@home", "newest")


@pytest.mark.parametrize("part", ["all", "world", "encoder"])
def test_a_part_of_the_weights_is_taken_and_the_rest_stays_as_drawn(part, source):
    old = trained(source)
    fresh = AgentCore(old.spec, old.config, generator=torch.Generator().manual_seed(8))
    before = {k: v.clone() for k, v in fresh.state_dict().items() if isinstance(v, torch.Tensor)}
    got = take_weights(fresh, str(source), part)
    theirs = weights(source)
    prefix = {"all": "", "world": "world.", "encoder": "world.encoder."}[part]
    assert {*got.taken} == {name for name in before if name.startswith(prefix)}
    assert not got.left
    for name, value in fresh.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, theirs[name] if name.startswith(prefix) else before[name])
    assert fresh.updates == 0  # the optimisers are new


def test_what_does_not_fit_is_named_and_nothing_that_fits_is_refused(source):
    old = trained(source)
    world = old.config.world.model_copy(update={"units": 24})
    config = old.config.model_copy(update={"world": world})
    fresh = AgentCore(old.spec, config, generator=torch.Generator().manual_seed(8))
    got = take_weights(fresh, str(source), "all")
    assert got.taken
    assert got.left
    assert " there, " in next(iter(got.left.values()))
    assert f"{len(got.taken)} of {len(got.taken) + len(got.left)} tensors" in got.sentence()


def test_offline_then_online_goes_on_from_the_weights_and_leaves_the_store_alone(
    source, toy, tiny, tmp_path, capsys
):
    store, offline, online = source / "store", tmp_path / "offline", tmp_path / "online"
    words = ("--no-publish", "--threads", "1", "--device", "cpu")
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    args = ["--store", str(store), "--run", str(offline), *tiny, "--no-publish"]
    assert main(["train", *args, "--train.updates", "12"]) == 0
    assert json.loads((offline / "settings.json").read_text())["task"] == TOY
    more = ("--task", TOY, "--train.steps", "64", "--train.replay-ratio", "0.01")
    more = (*more, "--train.prefill", "0", "--train.eval-every", "0", "--train.video-every", "0")
    capsys.readouterr()
    args = ["--run", str(online), "--init-from", f"{offline}@newest", *more, *words]
    assert main(["train", *args]) == 0
    assert f"tensors are those of {offline}" in capsys.readouterr().err
    noted = json.loads((online / NAME).read_text())
    assert (noted["updates"], noted["left"]) == (12, {})
    # its images begin where the offline run's stand, not at the mean colour of a first batch
    began = {"decoder": {"start": "gray"}}
    assert trained(online).config.world == WorldConfig(
        **merged(trained(offline).config.world.model_dump(), began)
    )
    ours, theirs = weights(online), weights(offline)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before


def test_an_origin_that_is_not_there_is_refused_and_leaves_nothing(source, toy, tmp_path, capsys):
    for origin, said in ((tmp_path / "nowhere", "unknown run"), (f"{source}@7", "no checkpoint")):
        run = tmp_path / "new" / "run"
        args = ["--task", TOY, "--run", str(run), "--init-from", str(origin)]
        assert main(["train", *args]) == 2
        assert said in capsys.readouterr().err
        assert not run.parent.exists()


def test_a_run_begins_with_the_steps_of_a_store_and_collects_its_own(
    source, toy, tiny, tmp_path, capsys
):
    store, run = source / "store", tmp_path / "run"
    before = {p: p.read_bytes() for p in store.rglob("*") if p.is_file()}
    began = counts(store)["steps"]
    args = ("--task", TOY, "--run", str(run), "--init-store", str(store), *tiny, "--no-publish")
    assert main(["train", *args, "--train.steps", "64", "--train.replay-ratio", "1"]) == 0
    assert counts(run / "store")["steps"] == began + 64
    assert checkpoint.newest(run)[1]["learner"]["updates"] == (began + 64) // 32
    assert main(["train", "--run", str(run), "--resume"]) == 0  # there is nothing left to do
    assert counts(run / "store")["steps"] == began + 64
    assert {p: p.read_bytes() for p in store.rglob("*") if p.is_file()} == before
    for wrong, said in ((source, "expected a store"), (tmp_path / "x", "unknown store")):
        args = ("--task", TOY, "--run", str(tmp_path / "new"), "--init-store", str(wrong))
        assert main(["train", *args]) == 2
        assert "--init-store" in (err := capsys.readouterr().err)
        assert said in err
        assert not (tmp_path / "new").exists()


def counts(store: Path) -> dict[str, int]:
    """What the ledger of ``store`` counts."""
    with contextlib.closing(Ledger(store / LEDGER_NAME, read_only=True)) as ledger:
        return ledger.counts()


# ---------------------------------------------------------------------- specs from files


@pytest.mark.mujoco
def test_a_spec_file_may_ask_for_larger_images_and_what_is_measured_beside_them(tmp_path):
    env = EnvConfig(proprio=True, image_size=128)
    made = make_env("seek", env)
    spec = spec_of(made, env)
    made.close()
    assert spec.vectors
    file = tmp_path / "spec.json"
    file.write_text(spec.model_dump_json())
    settings = TrainSettings(run=tmp_path / "run", task="seek", spec=file)
    assert find_experience(settings, None) == (spec, None)
    with pytest.raises(SettingsError, match=r"task 'walker_walk' does not fit .*spec.json: "):
        find_experience(settings.model_copy(update={"task": "walker_walk"}), None)
    assert [path.name for path in tmp_path.iterdir()] == ["spec.json"]

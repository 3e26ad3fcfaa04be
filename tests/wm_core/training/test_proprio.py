"""Pixels and measurements together: trained, exported and run, from a task and from a spec."""

import contextlib
import io
import json

import pytest

from wm_core.cli.main import main
from wm_core.contract.runner import PolicyRunner
from wm_core.training.settings import EnvConfig
from wm_core.training.tasks import make_env, spec_of

pytestmark = pytest.mark.mujoco
TASK = "reacher_easy"
ENV = ("--env.proprio", "--env.image-size", "16", "--env.action-repeat", "25")
SHORT = ("--train.steps", "80", "--train.updates", "2", "--no-publish")


def answer(*args: str) -> dict:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        assert main(list(args)) == 0
    return json.loads(out.getvalue())


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("proprio") / "run"
    assert main(["train", "--task", TASK, "--run", str(run), *tiny, *ENV, *SHORT]) == 0
    return run


def test_a_policy_of_pixels_and_proprio_keeps_size_and_repeat_and_runs(run, tmp_path):
    assert main(["export", "--run", str(run), "--to", str(tmp_path), "--golden-steps", "3"]) == 0
    spec = PolicyRunner.load(tmp_path).spec
    assert spec.images["image"].shape == (16, 16, 3)
    assert spec.vectors["proprio"].size == 6
    assert spec.period_s == pytest.approx(0.5)
    got = answer("evaluate", "--policy", str(tmp_path), "--episodes", "1", "--json")
    assert got["lengths"] == [40]  # 1,000 control steps


def test_a_policy_is_refused_at_another_repeat(run, capsys):
    words = ("evaluate", "--run", str(run), "--checkpoint", "--episodes", "1")
    assert main([*words, "--env.action-repeat", "2"]) == 2
    assert "0.5 s is 25 control steps of task 'reacher_easy'" in capsys.readouterr().err


def test_a_spec_with_measurements_needs_no_more_options(tiny, tmp_path):
    env = EnvConfig(proprio=True, image_size=16, action_repeat=25)
    with contextlib.closing(make_env(TASK, env)) as made:
        spec = spec_of(made, env)
    file, run = tmp_path / "spec.json", tmp_path / "run"
    file.write_text(spec.model_dump_json())
    words = ("--task", TASK, "--spec", str(file), "--run", str(run))
    assert main(["train", *words, *tiny, *SHORT, "--train.updates", "1"]) == 0
    kept = json.loads((run / "settings.json").read_text())["env"]
    assert kept["action_repeat"] == 25


def test_a_spec_whose_vector_the_task_does_not_have_is_refused_by_its_name(tiny, tmp_path, capsys):
    env = EnvConfig(proprio=True, image_size=16)
    with contextlib.closing(make_env(TASK, env)) as made:
        values = spec_of(made, env).model_dump(mode="json")
    values["vectors"] = {"arm": values["vectors"]["proprio"]}
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(values))
    words = ("--task", TASK, "--spec", str(file), "--run", str(tmp_path / "run"))
    assert main(["train", *words, *tiny, *SHORT]) == 2
    assert "'arm'" in capsys.readouterr().err

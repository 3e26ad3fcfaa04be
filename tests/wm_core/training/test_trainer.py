"""The loop on a toy task with the smallest agent: in sim, offline, beside a growing store."""

import json
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from wm_core.cli.main import main
from wm_core.contract.runner import PolicyRunner
from wm_core.library.runs import facts_of
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.robot import RobotFile
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training import checkpoint

pytestmark = pytest.mark.long

STEPS = 320  #: of the run that most tests look at: 16 * 320 / (4 * 8) = 160 updates


def lines(run: Path) -> list[dict]:
    return [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]


def status(run: Path) -> dict:
    return json.loads((run / "status.json").read_text())


def wait_for(condition, *, timeout_s: float, process=None) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if process is not None and process.poll() is not None:
            pytest.fail(f"ended early with {process.returncode}: {process.communicate()[1]}")
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def trained(train_toy) -> Path:
    """A run of the toy task, trained online to its goal; its one video comes at the end."""
    goal = ("--train.steps", str(STEPS), "--train.video-every", "1000")
    return train_toy(*goal, "--train.envs", "2")


def offline(trained: Path, run: Path, tiny, updates: int, *more: str) -> dict:
    """The newest checkpoint after ``wm train`` on the finished store of ``trained``."""
    args = ["--store", str(trained / "store"), "--run", str(run), "--no-publish", *tiny]
    assert main(["train", *args, "--train.updates", str(updates), *more]) == 0
    return checkpoint.newest(run)[1]


def same(a, b) -> bool:
    """Whether two checkpoints hold the same bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


# ---------------------------------------------------------------------- in sim


def test_in_sim_it_collects_to_the_goal_and_trains_up_to_the_ratio(trained):
    now = status(trained)
    assert now["phase"] == "done"
    assert STEPS <= now["agent_steps"] < STEPS + 64
    assert now["updates"] == 16 * now["agent_steps"] // (4 * 8)
    ledger = Ledger(trained / "store" / LEDGER_NAME)
    assert ledger.counts()["steps"] == now["agent_steps"]
    ledger.close()


def test_in_sim_the_same_seed_is_the_same_run(toy, tiny, tmp_path):
    states = []
    for name in ("one", "two"):
        args = ["--task", toy, "--run", str(tmp_path / name), "--no-publish", *tiny]
        assert main(["train", *args, "--train.steps", "128", "--train.replay-ratio", "8"]) == 0
        states.append(checkpoint.newest(tmp_path / name)[1])
    assert states[0]["learner"]["updates"] == 32
    assert same(states[0]["learner"]["agent"], states[1]["learner"]["agent"])
    assert same(states[0]["streams"], states[1]["streams"])


def test_metrics_settings_and_returns_are_written(trained):
    settings = json.loads((trained / "settings.json").read_text())
    assert settings["train"]["steps"] == STEPS
    assert settings["about"]["run_id"]
    rows = lines(trained)
    assert [r["updates"] for r in rows] == sorted(r["updates"] for r in rows)
    last = [r for r in rows if "loss" in r][-1]
    assert np.isfinite(last["loss"])
    assert 0 < last["replay_ratio"] <= 16
    assert any("episode/return" in r for r in rows)
    assert any(b"imagined" in events.read_bytes() for events in (trained / "tb").iterdir())


def test_version_0_is_untrained_and_the_next_ones_are_50_updates_apart(trained):
    repository = PolicyRepository(trained / "policies")
    manifests = [
        json.loads((repository.folder(v) / "policy.manifest.json").read_text())
        for v in repository.versions()
    ]
    assert [m["version"] for m in manifests] == list(range(len(manifests)))
    updates = [m["learner_updates"] for m in manifests]
    assert updates[0] == 0
    assert len(updates) >= 3
    assert min(np.diff(updates)) >= 50
    assert len({m["weights_sha256"] for m in manifests}) == len(manifests)
    gates = json.loads((repository.folder(repository.versions()[-1]) / "gates.json").read_text())
    assert gates["episodes"] >= 1
    assert np.isfinite(gates["last_return"])


def test_a_run_of_a_few_updates_leaves_a_policy_of_what_it_learnt(train_toy):
    run = train_toy("--train.steps", "72", "--train.replay-ratio", "4")
    done, newest = status(run)["updates"], PolicyRepository(run / "policies").latest()
    assert 0 < done < 50
    assert (newest.version, newest.learner_updates) == (1, done)


def test_published_policies_load_and_prove_themselves(trained):
    repository = PolicyRepository(trained / "policies")
    for version in repository.versions():
        runner = PolicyRunner.load(repository.folder(version))
        assert runner.card.version == version
        assert runner.card.task == "wm_toy_dot:WmDot-v0"


def test_steps_say_which_policy_acted(trained, capsys):
    chunks = sorted((trained / "store").glob("sim-*/*/*.mcap"))
    assert main(["info", str(chunks[0]), "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["policy_versions"] == {"-1": first["steps"]}  # random prefill
    newest = max(chunks, key=lambda p: p.stem)
    assert main(["info", str(newest), "--json"]) == 0
    assert "-1" not in json.loads(capsys.readouterr().out)["policy_versions"]


def test_a_run_is_never_written_over(trained, tiny, toy):
    before = checkpoint.listed(trained)
    assert main(["train", "--task", toy, "--run", str(trained), *tiny]) == 2
    assert checkpoint.listed(trained) == before


def test_a_finished_run_goes_on_with_higher_versions(trained, toy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained, run)
    before, version = status(run), PolicyRepository(run / "policies").latest().version
    goal = before["agent_steps"] + 128
    (run / "status.json.0a1b2c3d.tmp").touch()  # as a kill in the midst of a write leaves it
    assert main(["train", "--run", str(run), "--resume", "--train.steps", str(goal)]) == 0
    after = status(run)
    assert not list(run.glob("*.tmp"))
    assert after["agent_steps"] >= goal
    assert after["updates"] > before["updates"]
    assert PolicyRepository(run / "policies").latest().version > version
    updates = [r["updates"] for r in lines(run)]
    assert updates == sorted(updates)


def test_a_fresh_run_beside_old_policies_publishes_above_them(trained, tiny, toy, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "policies", run / "policies")
    repository = PolicyRepository(run / "policies")
    old = repository.latest()
    args = ["--store", str(trained / "store"), "--run", str(run), "--train.updates", "60", *tiny]
    assert main(["train", *args]) == 0
    untrained, new = (PolicyRunner.load(repository.folder(old.version + i)).card for i in (1, 2))
    assert (untrained.learner_updates, new.learner_updates) == (0, 50)
    assert repository.latest().version == old.version + 2


# ---------------------------------------------------------------------- offline


def test_offline_resume_is_bitwise(trained, tiny, tmp_path):
    straight = offline(trained, tmp_path / "straight", tiny, 60)
    offline(trained, tmp_path / "broken", tiny, 25)
    resumed = offline(trained, tmp_path / "broken", tiny, 60, "--resume")
    assert straight["learner"]["updates"] == resumed["learner"]["updates"] == 60
    assert same(straight["learner"], resumed["learner"])
    assert same(straight["streams"], resumed["streams"])


def test_another_seed_is_another_run(trained, tiny, tmp_path):
    one = offline(trained, tmp_path / "one", tiny, 5, "--seed", "1")
    two = offline(trained, tmp_path / "two", tiny, 5, "--seed", "2")
    assert not same(one["learner"]["agent"], two["learner"]["agent"])


def test_without_the_latents_a_checkpoint_still_resumes(trained, tiny, tmp_path):
    less = ("--train.checkpoint-latents-bytes", "0")
    state = offline(trained, tmp_path / "run", tiny, 10, *less)
    assert state["learner"]["latents"] is None
    state = offline(trained, tmp_path / "run", tiny, 20, "--resume", *less)
    assert state["learner"]["updates"] == 20


def test_an_empty_store_is_said_to_be_empty(toy, tiny, tmp_path, capsys):
    (tmp_path / "store").mkdir()
    args = ["--store", str(tmp_path / "store"), "--task", toy, "--run", str(tmp_path / "run")]
    assert main(["train", *args, "--no-publish", *tiny]) == 2
    assert "nothing to learn from" in capsys.readouterr().err


def test_a_loss_that_is_no_number_stops_loudly_and_names_the_last_good_state(
    trained, tiny, tmp_path, monkeypatch, capsys
):
    from wm_core.agents.agent import AgentCore

    update = AgentCore.update

    def poisoned(self, *args):
        metrics, posterior = update(self, *args)
        if self.updates > 12:
            metrics["loss"] = metrics["loss"] * float("nan")
        return metrics, posterior

    monkeypatch.setattr(AgentCore, "update", poisoned)
    args = ["--store", str(trained / "store"), "--run", str(tmp_path / "run"), "--no-publish"]
    assert main(["train", *args, *tiny, "--train.updates", "40"]) == 2
    said = capsys.readouterr().err
    assert "loss ceased to be finite at update 20" in said
    good = checkpoint.newest(tmp_path / "run")[0]
    assert str(good) in said
    assert status(tmp_path / "run")["phase"] == "diverged"


# ---------------------------------------------------------------------- beside robots


def test_following_a_store_publishes_first_and_learns_as_it_grows(
    trained, toy, tiny, tmp_path, start_wm
):
    run = tmp_path / "run"
    process = start_wm("train", "--follow", "--task", toy, "--run", str(run), *tiny)
    repository = PolicyRepository(run / "policies")
    wait_for(lambda: repository.latest() is not None, timeout_s=300, process=process)
    assert repository.latest().version == 0
    wait_for(lambda: status(run)["phase"] == "waiting", timeout_s=300, process=process)
    assert status(run)["updates"] == 0
    source = Ledger(trained / "store" / LEDGER_NAME)
    rows = source.since(0)
    half = len(rows) // 2
    arrive(trained / "store", run / "store", rows[:half])
    wait_for(lambda: status(run)["updates"] > 0, timeout_s=300, process=process)
    seen = status(run)["agent_steps"]
    arrive(trained / "store", run / "store", rows[half:])
    wait_for(lambda: status(run)["agent_steps"] > seen, timeout_s=300, process=process)
    wait_for(lambda: repository.latest().version >= 1, timeout_s=300, process=process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0
    assert checkpoint.newest(run)[1]["learner"]["updates"] == status(run)["updates"]
    assert max(row["replay_ratio"] for row in lines(run)) <= 16
    source.close()


def test_following_robots_by_a_robot_file_publishes_a_policy_that_fits_it(
    tiny, tmp_path, start_wm
):
    file, run = tmp_path / "robot.yaml", tmp_path / "run"
    file.write_text(
        "rate_hz: 10\n"
        "observations: {image: {type: sensor_msgs/Image, topic: cam, height: 32, width: 32},\n"
        "  proprio: {type: sensor_msgs/JointState, joints: [a, b]}}\n"
        "actions: {type: geometry_msgs/Twist, low: [0.1, -1], high: [1, 1], safe: [0.1, 0]}\n"
    )
    process = start_wm("train", "--follow", "--spec", str(file), "--run", str(run), *tiny)
    repository = PolicyRepository(run / "policies")
    wait_for(lambda: repository.latest() is not None, timeout_s=300, process=process)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=300) == 0
    spec = PolicyRunner.load(repository.folder(0)).spec
    assert spec == RobotFile.load(file).spec()


def arrive(source: Path, target: Path, rows) -> None:
    """Chunks of one store reach another one by the door that robots' chunks come through."""
    from wm_core.format.chunk import chunk_path
    from wm_core.store.ingest import ingest

    ledger = Ledger(target / LEDGER_NAME)
    for row in rows:
        data = chunk_path(source, row.key).read_bytes()
        assert ingest(target, ledger, row.key, data, row.sha256).ok
    ledger.close()


# ---------------------------------------------------------------------- kills


def test_after_sigkill_no_counter_goes_back_and_no_version_repeats(toy, tiny, tmp_path, start_wm):
    run = tmp_path / "run"
    args = ["train", "--task", toy, "--run", str(run), *tiny, "--train.steps", "2000"]
    process = start_wm(*args)
    repository = PolicyRepository(run / "policies")

    def published(version: int) -> bool:
        last = repository.latest()
        return last is not None and last.version >= version

    wait_for(lambda: published(1), timeout_s=300, process=process)
    assert facts_of(run).pid == process.pid
    process.kill()
    process.wait(timeout=300)
    assert facts_of(run).state == "killed"
    before, last = status(run), repository.latest()
    process = start_wm(*args, "--resume")
    wait_for(lambda: published(last.version + 1), timeout_s=300, process=process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=300) == 0
    assert facts_of(run).state == "stopped"
    after, new = status(run), repository.latest()
    assert new.learner_updates >= last.learner_updates + 50
    assert after["agent_steps"] >= before["agent_steps"]
    assert after["published_version"] == new.version
    rows = lines(run)
    assert [r["updates"] for r in rows] == sorted(r["updates"] for r in rows)
    assert [r["agent_steps"] for r in rows] == sorted(r["agent_steps"] for r in rows)
    ledger = Ledger(run / "store" / LEDGER_NAME)
    assert ledger.counts()["steps"] == after["agent_steps"]
    ledger.close()


# ---------------------------------------------------------------------- wrong words


def test_a_typo_in_a_setting_names_the_nearest(toy, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["train", "--task", toy, "--run", str(tmp_path / "r"), "--train.replay-rato", "3"])
    assert ended.value.code == 2
    assert "--train.replay-ratio" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--size", "mikro"), "did you mean 'micro'"),
        (("--preset", "dreamer_v33"), "did you mean 'dreamer_v3'"),
        ((), "expected a --task"),
        (("--store", "nowhere"), "unknown store 'nowhere'"),
        (("--follow", "--spec", "no_such_file"), "--spec no_such_file"),
        (("--follow", "--spec", "no_such_robot.yaml"), "unknown file"),
    ],
)
def test_settings_that_cannot_be_are_refused(args, said, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--run", "run", *args]) == 2
    assert said in capsys.readouterr().err


def test_resuming_a_run_that_is_not_there_names_the_nearest(trained, capsys):
    assert main(["train", "--run", str(trained.with_name("rum")), "--resume"]) == 2
    assert "did you mean 'run'" in capsys.readouterr().err


def test_a_resume_with_other_networks_is_refused(trained, toy, tmp_path, capsys):
    assert main(["train", "--run", str(trained), "--resume", "--world.gru.deter", "32"]) == 2
    assert "--world.gru.deter (this run has 16, got 32)" in capsys.readouterr().err

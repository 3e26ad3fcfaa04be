"""Channels, roll-outs, pins and rollbacks: who runs which version, and that it outlives kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal

import pytest

from wm_core.cli.main import main
from wm_core.contract.errors import StoreError
from wm_core.contract.releases import Statement
from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.policy_keys import PolicyKeys, make_keys
from wm_core.link.trainer.policy_repository import PolicyRepository


@pytest.fixture
def root(tmp_path):
    return tmp_path / "run" / "policies"


@pytest.fixture
def published(root):
    repository = PolicyRepository(root)
    for version in range(4):
        gates = {"last_return": 1.5 * version, "episodes": 3}
        repository.publish(b"%d" % version, b"golden", version=version, gates=gates)
    return Channels(root)


def runs(channels, channel, robot="rover"):
    release = channels.course(channel).plan.release_for(robot)
    return None if release is None else release.version


def test_main_follows_the_newest_and_others_wait_for_their_first_promotion(published, root):
    assert runs(published, "main") == 3
    assert runs(published, "stable") is None
    published.promote("stable", 1)
    PolicyRepository(root).publish(b"4", b"golden", version=4)
    assert (runs(published, "main"), runs(published, "stable")) == (4, 1)


def test_a_copy_of_a_channels_folder_is_no_channel_and_stops_no_learner(published, root):
    published.promote("stable", 1)
    shutil.copytree(root / "stable", root / "stable.bak")
    assert published.names() == ["main", "stable"]
    PolicyRepository(root).publish(b"4", b"golden", version=4)
    assert runs(published, "main") == 4


def test_a_rollback_goes_back_one_release_at_a_time(published):
    for version in (0, 2, 3):
        published.promote("stable", version)
    seen = [runs(published, "stable")]
    for _ in range(2):
        published.roll_back("stable")
        seen.append(runs(published, "stable"))
    assert seen == [3, 2, 0]
    with pytest.raises(StoreError, match="no release before"):
        published.roll_back("stable")


def test_a_rollback_of_the_newest_holds_until_it_is_followed_again(published, root):
    published.roll_back("main")
    PolicyRepository(root).publish(b"4", b"golden", version=4)
    assert runs(published, "main") == 2
    published.follow("main")
    assert runs(published, "main") == 4


def test_a_rollout_reaches_a_part_and_is_promoted_or_taken_back(published):
    published.promote("stable", 1)
    published.roll_out("stable", 2, 0.25, ("rover",))
    names = [f"robot-{n}" for n in range(400)]
    part = sum(runs(published, "stable", name) == 2 for name in names)
    assert 60 < part < 140
    assert runs(published, "stable") == 2
    published.roll_back("stable")
    assert {runs(published, "stable", name) for name in names} == {1}
    published.roll_out("stable", 2, 0.25, ())
    published.promote("stable", 2)
    assert published.course("stable").plan.rollout is None
    assert {runs(published, "stable", name) for name in names} == {2}


def test_a_pinned_robot_stays_and_its_version_is_kept(published, root):
    published.pin("main", "rover", 0)
    repository = PolicyRepository(root, keep=1)
    for version in range(4, 8):
        repository.publish(b"%d" % version, b"golden", version=version)
    assert repository.versions() == [0, 7]
    assert (runs(published, "main"), runs(published, "main", "other")) == (0, 7)
    published.pin("main", "rover", None)
    repository.publish(b"8", b"golden", version=8)
    assert repository.versions() == [8]


@pytest.mark.parametrize(
    ("argv", "word"),
    [
        (["promote", "9", "--to", "stable"], "there are: 0, 1, 2, 3"),
        (["rollout", "1", "--to", "stable", "--share", "3"], "share"),
        (["rollout", "1", "--to", "stable", "--share", "nan"], "share"),
        (["pin", "../rover", "1"], "pins"),
        (["promote", "1", "--to", "../stable"], "expected a channel"),
        (["promote", str(2**63), "--to", "stable"], "there are"),
    ],
)
def test_a_change_that_cannot_be_is_said_and_changes_nothing(published, root, argv, word, capsys):
    before = {path: path.read_bytes() for path in root.rglob("*.json")}
    assert main(["policy", *argv, "--root", str(root.parent)]) == 2
    assert word in capsys.readouterr().err
    assert {path: path.read_bytes() for path in root.rglob("*.json")} == before


def test_the_verb_lists_and_changes(published, root, capsys):
    run = ["--root", str(root.parent)]
    for argv in (
        ["promote", "1", "--to", "stable"],
        ["rollout", "2", "--to", "stable", "--share", "0.5", "--robots", "rover"],
        ["pin", "arm", "0", "--channel", "stable"],
    ):
        assert main(["policy", *argv, *run]) == 0
    assert main(["policy", "list", *run]) == 0
    said = capsys.readouterr().out
    assert [line.split()[:3] for line in said.splitlines() if line.startswith("      3")] == [
        ["3", "0", "4.5"]
    ]
    assert "channel stable: version 1; rolls out 2 to 50% and rover; pinned: arm at 0" in said
    assert main(["policy", "unpin", "arm", "--channel", "stable", *run]) == 0
    assert main(["policy", "rollback", "--channel", "stable", *run]) == 0
    assert runs(published, "stable") == 1


def _serial(signed):
    return Statement.parse(signed.document).serial


def test_statements_are_signed_anew_only_for_changes_and_age_and_serials_never_fall(
    published, root, tmp_path
):
    make_keys(tmp_path / "keys")
    keys = PolicyKeys(tmp_path / "keys")
    first = published.statement("main", keys, lifetime_s=3600)
    assert published.statement("main", keys, lifetime_s=3600) == first
    published.promote("main", 1)
    second = published.statement("main", keys, lifetime_s=3600)
    assert _serial(second) > _serial(first)
    third = published.statement("main", keys, lifetime_s=0)
    (root / "main" / "statement.json").write_text("damaged")
    fourth = published.statement("main", keys, lifetime_s=3600)
    assert _serial(third) >= _serial(second)
    assert _serial(fourth) >= _serial(first)  # the clock's seconds are the least it begins with
    assert Statement.parse(fourth.document).current.version == 1


def _change_for_ever(root):
    channels, version = Channels(root), 0
    while True:
        channels.promote("stable", version % 4)
        channels.pin("stable", f"robot-{version % 7}", version % 4)
        version += 1


def test_a_kill_in_the_middle_of_a_change_leaves_a_whole_course(published, root):
    context = multiprocessing.get_context("spawn")
    for delay in range(2):
        writer = context.Process(target=_change_for_ever, args=(root,))
        writer.start()
        path = root / "stable" / "plan.json"
        changes = 0
        last = path.stat().st_ino if path.exists() else None
        while changes < 3 + 4 * delay:
            now = path.stat().st_ino if path.exists() else None
            changes += now != last
            last = now
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        assert runs(published, "stable") in range(4)
        json.loads(path.read_bytes())
        published.promote("stable", 0)  # the lock went with the process


def test_a_damaged_course_is_named(published, root):
    (root / "stable").mkdir()
    (root / "stable" / "plan.json").write_text("{")
    with pytest.raises(StoreError, match=r"plan\.json"):
        published.course("stable")

"""A version appears on the repository whole, in order, and the latest one always stays."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import sys
import time

import pytest

from wm_core.contract.errors import StoreError
from wm_core.contract.policy_folder import remove_version
from wm_core.link.trainer.policy_repository import PolicyRepository


def test_the_latest_version_names_its_bytes(tmp_path):
    repository = PolicyRepository(tmp_path)
    assert repository.latest() is None
    repository.publish(b"zero", b"golden", version=0, weights_sha256="a" * 64)
    manifest = repository.publish(b"one", b"golden", version=1, parent=0, learner_updates=7)
    assert repository.latest() == manifest
    assert (manifest.parent, manifest.learner_updates, manifest.channel) == (0, 7, "main")
    assert (repository.folder(1) / "policy.onnx").read_bytes() == b"one"
    assert manifest.policy.sha256 == hashlib.sha256(b"one").hexdigest()
    assert (repository.folder(1) / "policy.manifest.json").exists()
    assert repository.blob(manifest.policy.sha256) == repository.folder(1) / "policy.onnx"
    assert repository.blob("0" * 64) is None


def test_versions_never_go_back_and_the_same_again_changes_nothing(tmp_path):
    repository = PolicyRepository(tmp_path)
    first = repository.publish(b"three", b"golden", version=3)
    assert repository.publish(b"three", b"golden", version=3) == first
    for version in (2, 3):
        with pytest.raises(StoreError, match="cannot follow 3"):
            repository.publish(b"other", b"golden", version=version)


def test_the_newest_versions_stay(tmp_path):
    repository = PolicyRepository(tmp_path, keep=2)
    for version in range(4):
        repository.publish(b"%d" % version, b"golden", version=version)
    assert repository.versions() == [2, 3]


def test_a_half_written_version_is_ignored(tmp_path):
    repository = PolicyRepository(tmp_path)
    (tmp_path / "main" / "00000000.tmp").mkdir(parents=True)
    (tmp_path / "main" / "00000000.tmp" / "policy.onnx").write_bytes(b"half")
    assert repository.versions() == []
    repository.publish(b"zero", b"golden", version=0)
    assert (repository.folder(0) / "policy.onnx").read_bytes() == b"zero"
    assert [p.name for p in (tmp_path / "main").iterdir() if p.is_dir()] == ["00000000"]


def test_a_channel_cannot_name_another_folder(tmp_path):
    with pytest.raises(StoreError, match="channel"):
        PolicyRepository(tmp_path, "../main")


def _publish_for_ever(root):
    repository = PolicyRepository(root, keep=2)
    last = repository.latest()
    version = 0 if last is None else last.version + 1
    while True:
        repository.publish(b"%d" % version, b"golden", version=version)
        version += 1


def test_a_kill_while_versions_are_published_leaves_each_of_them_whole(tmp_path):
    context = multiprocessing.get_context("spawn")
    repository, reached = PolicyRepository(tmp_path), -1
    for _ in range(2):
        writer = context.Process(target=_publish_for_ever, args=(tmp_path,))
        writer.start()
        while (last := repository.latest()) is None or last.version < reached + 3:
            time.sleep(0.002)
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        last = repository.latest()
        assert last.version > reached
        reached = last.version
        for version in repository.versions():
            content = (repository.folder(version) / "policy.onnx").read_bytes()
            assert content == b"%d" % version
        assert reached in repository.versions()
    repository.publish(b"next", b"golden", version=reached + 5)
    assert not list((tmp_path / "main").glob("*.tmp"))


def _prune_and_die(home, removed):
    def hook(event, arguments):
        nonlocal removed
        if event == "os.remove":
            removed -= 1
            if removed < 0:
                os._exit(9)

    sys.addaudithook(hook)
    remove_version(home, 0)


@pytest.mark.parametrize("removed", [0, 1, 2])
def test_a_kill_while_a_version_is_removed_leaves_no_part_of_it(tmp_path, removed):
    repository = PolicyRepository(tmp_path)
    for version in range(2):
        repository.publish(b"%d" % version, b"golden", version=version)
    context = multiprocessing.get_context("spawn")
    pruning = context.Process(target=_prune_and_die, args=(tmp_path / "main", removed))
    pruning.start()
    pruning.join()
    assert pruning.exitcode == 9
    assert repository.versions() == [1]
    repository.publish(b"2", b"golden", version=2)
    assert not list((tmp_path / "main").glob("*.tmp"))

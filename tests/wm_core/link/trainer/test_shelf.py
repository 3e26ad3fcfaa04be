"""A version appears on the shelf whole, in order, and the latest one always stays."""

from __future__ import annotations

import hashlib

import pytest

from wm_core.contract.errors import StoreError
from wm_core.link.trainer.shelf import PolicyShelf


def test_the_latest_version_names_its_bytes(tmp_path):
    shelf = PolicyShelf(tmp_path)
    assert shelf.latest() is None
    shelf.publish(b"zero", b"golden", version=0, weights_sha256="a" * 64)
    manifest = shelf.publish(b"one", b"golden", version=1, parent=0, learner_updates=7)
    assert shelf.latest() == manifest
    assert (manifest.parent, manifest.learner_updates, manifest.channel) == (0, 7, "main")
    assert (shelf.folder(1) / "policy.onnx").read_bytes() == b"one"
    assert manifest.policy.sha256 == hashlib.sha256(b"one").hexdigest()
    assert (shelf.folder(1) / "policy.manifest.json").exists()
    assert shelf.blob(manifest.policy.sha256) == shelf.folder(1) / "policy.onnx"
    assert shelf.blob("0" * 64) is None


def test_versions_never_go_back_and_the_same_again_changes_nothing(tmp_path):
    shelf = PolicyShelf(tmp_path)
    first = shelf.publish(b"three", b"golden", version=3)
    assert shelf.publish(b"three", b"golden", version=3) == first
    for version in (2, 3):
        with pytest.raises(StoreError, match="cannot follow 3"):
            shelf.publish(b"other", b"golden", version=version)


def test_the_newest_versions_stay(tmp_path):
    shelf = PolicyShelf(tmp_path, keep=2)
    for version in range(4):
        shelf.publish(b"%d" % version, b"golden", version=version)
    assert shelf.versions() == [2, 3]


def test_a_version_left_half_written_is_no_version(tmp_path):
    shelf = PolicyShelf(tmp_path)
    (tmp_path / "main" / "00000000.tmp").mkdir(parents=True)
    (tmp_path / "main" / "00000000.tmp" / "policy.onnx").write_bytes(b"half")
    assert shelf.versions() == []
    shelf.publish(b"zero", b"golden", version=0)
    assert (shelf.folder(0) / "policy.onnx").read_bytes() == b"zero"
    assert [p.name for p in (tmp_path / "main").iterdir() if p.is_dir()] == ["00000000"]


def test_a_channel_cannot_name_another_folder(tmp_path):
    with pytest.raises(StoreError, match="channel"):
        PolicyShelf(tmp_path, "../main")

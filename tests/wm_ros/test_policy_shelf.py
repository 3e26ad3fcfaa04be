"""A policy that is copied waits until it is whole; one that is refused lets an older one run."""

from __future__ import annotations

import itertools
import os
import re

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.runner import PolicyRunner
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.settings import SlotSettings

ZERO = np.zeros(2, np.float32)


@pytest.fixture
def home(tmp_path):
    return tmp_path / "policies"


@pytest.fixture
def obs():
    return {"image": np.full((32, 32, 3), 80, np.uint8)}


def slot_at(home, **kwargs):
    return PolicySlot(FolderSource(home), SlotSettings(), **kwargs)


def tick(slot, obs, *, first=False):
    """One tick of a robot that runs ``slot``, and what its worker does behind it."""
    slot.between_ticks()
    out = slot.act(obs, ZERO, first)
    slot.between_ticks()
    slot.prepare(out.action)
    slot.follow()
    return out.action[0]


def copy_bytes(source, target, name, n=None):
    data = (source / name).read_bytes()
    target.mkdir(parents=True, exist_ok=True)
    (target / name).write_bytes(data if n is None else data[:n])


FILES = ("policy.onnx", "policy.golden.npz", "policy.manifest.json")


@pytest.mark.parametrize("order", [*itertools.permutations(FILES)])
def test_a_policy_copied_file_by_file_in_any_order_runs_when_it_is_whole(
    home, policy_at, tmp_path, order
):
    whole, target = policy_at(tmp_path / "whole", version=7), home / "00000007"
    slot = slot_at(home)
    for name in order:
        size = (whole / name).stat().st_size
        for n in (0, size // 2, size - 1, size):
            assert not slot.look()
            assert slot.runner is None
            copy_bytes(whole, target, name, n)
    assert slot.refusals == []
    assert slot.look()
    slot.between_ticks()
    assert slot.runner.card.version == 7
    assert slot.problem() == ""


def test_a_copy_says_how_far_it_has_come(home, policy_at, tmp_path):
    whole, target = policy_at(tmp_path / "whole", version=7), home / "00000007"
    slot = slot_at(home)
    copy_bytes(whole, target, "policy.manifest.json")
    copy_bytes(whole, target, "policy.onnx", 100)
    slot.look()
    n, m = 100, sum((whole / name).stat().st_size for name in FILES[:2])
    assert slot.problem() == f"00000007: still being copied, {n} of {m} bytes"
    copy_bytes(whole, target, "policy.onnx")
    (target / "policy.manifest.json").unlink()
    slot.look()
    assert "policy.manifest.json is not there yet" in slot.problem()


def test_a_copy_that_was_broken_off_is_refused_once_and_taken_when_it_goes_on(
    home, policy_at, tmp_path, monkeypatch
):
    said = []
    whole, target = policy_at(tmp_path / "whole", version=7), home / "00000007"
    slot = slot_at(home, on_event=said.append)
    copy_bytes(whole, target, "policy.manifest.json")
    copy_bytes(whole, target, "policy.onnx", 100)
    slot.look()
    monkeypatch.setattr("wm_ros.policies.shelf._STILL_S", -1.0)
    for _ in range(3):
        assert not slot.look()
    refused = [text for text in said if "refused" in text]
    assert len(refused) == 1
    assert "still being copied, 100 of" in refused[0]
    for name in FILES:
        copy_bytes(whole, target, name)
    assert slot.look()


def test_a_file_of_the_right_size_and_wrong_content_is_tried_again_when_it_changes(
    home, policy_at, tmp_path
):
    whole, target = policy_at(tmp_path / "whole", version=7), home / "00000007"
    for name in FILES:
        copy_bytes(whole, target, name)
    data = (whole / "policy.onnx").read_bytes()
    slot = slot_at(home)
    for cut in (0, len(data) // 2):  # space that is reserved first and filled then
        (target / "policy.onnx").write_bytes(data[:cut] + bytes(len(data) - cut))
        assert not slot.look()
        assert not slot.look()
    assert slot.counters()["policies_refused"] == 1
    (target / "policy.onnx").write_bytes(data)
    assert slot.look()


def test_an_older_policy_runs_where_the_newest_is_refused(home, policy_at, damaged, spec_of, obs):
    def accept(runner: PolicyRunner) -> None:
        if runner.spec.images["image"].height != 32:
            raise SpecMismatch("expected 32")

    policy_at(home / "00000001", version=1, bias=0.25)
    policy_at(home / "00000002", version=2, spec=spec_of(16))
    damaged(home / "00000001", home / "00000003")
    slot = slot_at(home, accept=accept)
    assert slot.look()
    assert tick(slot, obs, first=True) == 0.25
    assert slot.counters()["policies_refused"] == 2
    assert not slot.look()
    policy_at(home / "00000004", version=4, bias=0.5)  # good, but a broken one comes behind it
    damaged(home / "00000001", home / "00000005")
    assert slot.look()
    assert tick(slot, obs) == 0.5
    assert not slot.look()
    assert slot.counters()["policies_refused"] == 3
    assert slot.problem().startswith("00000005 refused")


def test_a_touched_or_copied_over_policy_is_not_swapped_for_itself(home, policy_at, obs):
    folder = policy_at(home / "00000001", version=1)
    slot = slot_at(home)
    slot.look()
    tick(slot, obs, first=True)
    for name in FILES:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data)
    assert not slot.look()
    assert slot.counters()["policies_loaded"] == 1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda p: p.parent.mkdir(), r"polices does not exist; .* does and holds policies"),
        (lambda p: p.mkdir(parents=True), "has no policy.onnx and no numbered versions.*nothing"),
        (lambda p: [p.parent.mkdir(), p.write_text("")], "is a file: expected a folder"),
        (lambda p: (p / "latest").mkdir(parents=True), "it holds latest"),
    ],
)
def test_a_folder_without_policies_is_named_with_what_is_there(tmp_path, make, said):
    events = []
    home = tmp_path / "robot" / "polices"
    make(home)
    if not home.exists():
        (home.parent / "policies").mkdir()
    slot = slot_at(home, on_event=events.append)
    for _ in range(2):
        assert not slot.look()
    assert re.search(said, slot.problem()), slot.problem()
    assert str(home) in slot.problem()
    assert events == [f"no policy: {slot.problem()}"]


def test_a_pipe_in_place_of_a_file_makes_no_one_wait(home, policy_at):
    folder = policy_at(home / "00000001", version=1)
    (folder / "policy.onnx").unlink()
    os.mkfifo(folder / "policy.onnx")
    slot = slot_at(home)
    assert not slot.look()
    assert slot.runner is None

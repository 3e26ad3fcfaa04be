"""Whatever stands in place of a policy's files, the robot goes on and says what is wrong."""

from __future__ import annotations

import os
import shutil
import threading

import numpy as np
import pytest

from wm_core.contract.errors import PolicyRefused, PolicyUnready
from wm_core.contract.policy_folder import PolicyFolder, read_plain
from wm_core.contract.runner import PolicyRunner
from wm_ros.policies.slot import PolicySlot
from wm_ros.policies.source import FolderSource
from wm_ros.settings import SlotSettings

FILES = ("policy.onnx", "policy.golden.npz", "policy.manifest.json")
ZERO = np.zeros(2, np.float32)
OBS = {"image": np.full((32, 32, 3), 80, np.uint8)}


@pytest.fixture
def home(tmp_path):
    return tmp_path / "policies"


@pytest.fixture
def robot(home, policy_at):
    """A robot whose version 1 runs, and what its worker said."""
    policy_at(home / "00000001", version=1, bias=0.25)
    slot = PolicySlot(FolderSource(home), SlotSettings())
    assert slot.look()
    slot.between_ticks()
    return slot


def acts(slot):
    slot.between_ticks()
    out = slot.act(OBS, ZERO, False)
    slot.between_ticks()
    slot.follow()
    return float(out.action[0])


def looks(slot, seconds=60.0):
    """Look for new policies in a thread that must come back."""
    found = []
    thread = threading.Thread(target=lambda: found.append(slot.look()), daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "the worker waits for a file"
    return found[0]


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def folder(path):
    path.unlink()
    path.mkdir()


def to(target):
    def link(path):
        path.unlink()
        path.symlink_to(target)

    return link


def huge(path):
    """Three gigabytes that take no room on the disk."""
    with path.open("r+b") as file:
        file.truncate(3 << 30)


def gone(path):
    path.unlink()


ODD = {
    "a pipe": pipe,
    "a folder": folder,
    "a device without end": to("/dev/zero"),
    "a device that is empty": to("/dev/null"),
    "a terminal": to("/dev/tty"),
    "a link to itself": lambda path: to(path)(path),
    "a link to nowhere": to("/nowhere/at/all"),
    "another file of the robot": to("/etc/passwd"),
    "a file of the kernel": to("/proc/self/environ"),
    "three gigabytes": huge,
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("{}"),
    "no file": gone,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("kind", ODD)
def test_whatever_stands_in_place_of_a_file_nobody_waits_and_the_running_policy_goes_on(
    home, policy_at, robot, kind, name
):
    new = policy_at(home / "00000002", version=2, bias=0.5)
    ODD[kind](new / name)
    assert not looks(robot)
    assert not looks(robot)
    assert acts(robot) == 0.25
    assert robot.problem()
    assert "root:" not in robot.problem()  # nothing of a foreign file is said
    shutil.rmtree(new)
    policy_at(home / "00000003", version=3, bias=-0.5)
    assert looks(robot)
    assert acts(robot) == -0.5


@pytest.mark.parametrize("kind", ODD)
def test_whatever_stands_in_place_of_a_version_is_passed_over(home, policy_at, robot, kind):
    path = home / "00000002"
    path.write_text("")
    ODD[kind](path)
    assert not looks(robot)
    assert acts(robot) == 0.25


@pytest.mark.parametrize(
    "name",
    ["00000002\n", "00000002\x1b[31m", "\uff12", "-2", "2e3", "0" * 200 + "2", "2 ", "../2"],
)
def test_odd_names_are_no_versions_or_number_one(home, policy_at, tmp_path, robot, name):
    made = policy_at(tmp_path / "made", version=9, bias=0.5)
    target = home / name
    try:
        shutil.copytree(made, target)
    except OSError:
        pytest.skip("this file system takes no such name")
    looks(robot)
    assert acts(robot) in (0.25, 0.5)
    assert "\x1b" not in robot.problem()


def test_the_bytes_that_were_hashed_are_the_bytes_that_run(home, policy_at, tmp_path):
    """The file is exchanged as soon as it has been read; what runs is what was read."""
    good = policy_at(home / "00000002", version=2, bias=0.5)
    bad = policy_at(tmp_path / "bad", version=2, bias=-1.0)

    def opens(folder):
        runner = PolicyRunner.open(folder)
        os.replace(bad / "policy.onnx", good / "policy.onnx")
        return runner

    slot = PolicySlot(FolderSource(home), SlotSettings(), opens=opens)
    assert slot.look()
    slot.between_ticks()
    assert acts(slot) == 0.5


def test_files_that_are_exchanged_all_the_time_are_refused_or_whole(home, policy_at, tmp_path):
    """Two policies take turns in one folder while it is opened; a mixture never loads."""
    sources = [policy_at(tmp_path / f"s{k}", version=k, bias=k / 4) for k in (1, 2)]
    folder, stop = home / "00000001", threading.Event()
    folder.mkdir(parents=True)

    def exchange():
        turn = 0
        while not stop.is_set():
            for name in FILES:
                part = folder / f".{name}"
                part.write_bytes((sources[turn % 2] / name).read_bytes())
                os.replace(part, folder / name)
            turn += 1

    thread = threading.Thread(target=exchange, daemon=True)
    thread.start()
    whole = mixed = 0
    try:
        for _ in range(60):
            try:
                runner = PolicyRunner.load(folder)
            except PolicyUnready:
                mixed += 1
            except PolicyRefused as error:
                mixed += int("the manifest says" in str(error) or "golden" in str(error))
            else:
                whole += 1
                bias = runner.call(feed(runner))["action"][0, 0]
                assert bias == runner.card.version / 4
    finally:
        stop.set()
        thread.join(30)
    assert whole + mixed == 60


def feed(runner):
    inputs = {i.name: np.zeros(i.shape, i.dtype) for i in runner.card.inputs}
    return inputs | {
        "noise_action": np.full((1, 2), 0.5, np.float32),
        "is_first": np.array([True]),
    }


def test_a_plain_file_is_read_up_to_its_bound(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"12345")
    assert read_plain(path, 5) == b"12345"
    with pytest.raises(PolicyRefused, match="at most 4 bytes are read, it holds 5"):
        read_plain(path, 4)
    with pytest.raises(PolicyUnready, match="expected 6 bytes, got 5"):
        read_plain(path, 9, expected=6)
    with pytest.raises(PolicyRefused, match="no plain file"):
        read_plain(tmp_path, 9)
    with pytest.raises(PolicyUnready, match="cannot read"):
        read_plain(tmp_path / "none", 9)


def test_a_manifest_names_no_file_elsewhere_whatever_it_says(home, policy_at, robot):
    for name in ("../00000001/policy.golden.npz", "/etc/passwd", "", ".", "..", "a\x00b", "a/b"):
        new = policy_at(home / "00000002", version=2, bias=0.5)
        path = new / "policy.manifest.json"
        text = path.read_text().replace("policy.golden.npz", name.replace("\x00", "\\u0000"))
        path.write_text(text)
        assert not looks(robot)
        assert acts(robot) == 0.25
        PolicyFolder(new).fingerprint()
        shutil.rmtree(new)

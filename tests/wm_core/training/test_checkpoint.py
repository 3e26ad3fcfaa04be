"""Checkpoints that survive kills and refuse what they are not."""

import pickle

import numpy as np
import pytest
import torch

from wm_core.contract.errors import SettingsError, StoreError
from wm_core.training import checkpoint
from wm_core.training.seeding import Streams


def test_the_newest_readable_checkpoint_is_taken(tmp_path):
    for updates in (10, 20):
        checkpoint.save(tmp_path, {"x": torch.ones(2) * updates}, updates=updates, keep=5)
    (checkpoint.folder_of(tmp_path) / "000000030.pt").write_bytes(b"half a file")
    path, state = checkpoint.newest(tmp_path)
    assert path.name == "000000020.pt"
    assert state["x"].tolist() == [20, 20]


def test_only_the_last_ones_are_kept(tmp_path):
    for updates in range(5):
        checkpoint.save(tmp_path, {}, updates=updates, keep=2)
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["000000003.pt", "000000004.pt"]


def test_a_file_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("code ran",))

    path = tmp_path / "evil.pt"
    torch.save({"format": 1, "x": Evil()}, path, pickle_module=pickle)
    with pytest.raises(StoreError, match="not a readable checkpoint"):
        checkpoint.load(path)


def test_arrays_and_large_numbers_come_back_as_they_were(tmp_path):
    state = {
        "rng": np.random.default_rng(3).bit_generator.state,  # holds numbers of 128 bits
        "half": np.arange(6, dtype=np.float16).reshape(2, 3),
        "ids": np.array([2**40], np.int64),
        "deep": [{"a": np.float32(2.5)}, None, "text"],
    }
    checkpoint.save(tmp_path, {"s": checkpoint.plain(state)}, updates=1, keep=1)
    back = checkpoint.restored(checkpoint.newest(tmp_path)[1]["s"])
    assert back["rng"] == state["rng"]
    assert back["half"].dtype == np.float16
    np.testing.assert_array_equal(back["half"], state["half"])
    np.testing.assert_array_equal(back["ids"], state["ids"])
    assert back["deep"] == [{"a": 2.5}, None, "text"]


def test_an_unknown_run_names_the_nearest(tmp_path):
    (tmp_path / "walker").mkdir()
    with pytest.raises(StoreError, match="did you mean 'walker'"):
        checkpoint.newest(tmp_path / "walkr")


def test_streams_go_on_where_they_were(tmp_path):
    streams = Streams(7)
    streams.sampler.random(3)
    torch.rand(3, generator=streams.learner)
    checkpoint.save(tmp_path, {"s": streams.state()}, updates=0, keep=1)
    want = streams.sampler.random(4), torch.rand(4, generator=streams.learner)
    other = Streams(0)
    other.load_state(checkpoint.newest(tmp_path)[1]["s"])
    np.testing.assert_array_equal(other.sampler.random(4), want[0])
    assert torch.equal(torch.rand(4, generator=other.learner), want[1])


def test_a_generator_state_of_another_kind_of_device_seeds_the_streams():
    def draws(**changed):
        state = Streams(7).state()
        streams = Streams(0)
        streams.load_state(state | changed)
        return torch.rand(4, generator=streams.learner), streams.sampler.random()

    shorter = torch.arange(16, dtype=torch.uint8)
    first, again = draws(learner=shorter), draws(learner=shorter)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], draws(learner=shorter + 1)[0])
    assert first[1] == draws()[1]  # the others go on exactly


def test_streams_of_one_seed_are_independent_and_repeatable():
    a, b = Streams(1), Streams(1)
    a.explore.random(100)  # drawing from one stream changes no other
    assert a.sampler.random() == b.sampler.random()
    assert Streams(2).sampler.random() != Streams(1).sampler.random()


def test_a_checkpoint_is_found_by_its_name_or_its_updates(tmp_path):
    for updates in (10, 20):
        checkpoint.save(tmp_path, {"x": updates}, updates=updates, keep=5)
    folder = checkpoint.folder_of(tmp_path)
    with pytest.raises(StoreError, match=r"'best' .*once it has been evaluated.*updates: 10, 20"):
        checkpoint.find(tmp_path, "best")
    (folder / "best.pt").hardlink_to(folder / "000000010.pt")
    assert checkpoint.find(tmp_path)[1]["x"] == checkpoint.find(tmp_path, "newest")[1]["x"] == 20
    assert checkpoint.find(tmp_path, "10")[0] == checkpoint.find(tmp_path, 10)[0]
    assert checkpoint.find(tmp_path, "best")[1]["x"] == 10
    with pytest.raises(StoreError, match=r"no checkpoint '30'; kept are those of updates: 10, 20"):
        checkpoint.find(tmp_path, 30)
    with pytest.raises(SettingsError, match="expected best, newest or a number"):
        checkpoint.find(tmp_path, "newst")


def test_the_best_checkpoint_is_neither_the_newest_nor_pruned(tmp_path):
    checkpoint.save(tmp_path, {"x": 1}, updates=1, keep=1)
    folder = checkpoint.folder_of(tmp_path)
    (folder / "best.pt").hardlink_to(folder / "000000001.pt")
    checkpoint.save(tmp_path, {"x": 2}, updates=2, keep=1)
    assert checkpoint.find(tmp_path, "best")[1]["x"] == 1
    assert [p.name for p in checkpoint.listed(tmp_path)] == ["000000002.pt"]

"""A batch is changed as a whole: every array, or the first steps of every window."""

from __future__ import annotations

import numpy as np

from wm_core.contract.batch import Batch, stacked


def numbered(**optional):
    steps = np.arange(8, dtype=np.float32).reshape(2, 4)
    flags = np.zeros((2, 4), bool)
    obs = {"image": np.zeros((2, 4, 8, 8, 3), np.uint8), "joints": steps[..., None]}
    return Batch(obs, steps[..., None], steps, flags, flags, flags, **optional)


def test_first_keeps_the_first_steps_of_every_window_and_the_key_before_it():
    key = np.arange(8).reshape(2, 4)
    cut = numbered(key=key, context_key=np.array([7, 8])).first(3)
    assert cut.obs["image"].shape == (2, 3, 8, 8, 3)
    np.testing.assert_array_equal(cut.reward, [[0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(cut.key, [[0, 1, 2], [4, 5, 6]])
    np.testing.assert_array_equal(cut.context_key, [7, 8])


def test_map_leaves_out_what_a_batch_does_not_have():
    kinds = numbered().map(lambda array: array.dtype.kind)
    assert kinds.obs == {"image": "u", "joints": "f"}
    assert kinds.is_first == "b"
    assert kinds.key is None


def test_the_windows_of_a_batch_stack_to_the_batch():
    batch = numbered()
    again = stacked([batch.map(lambda array, i=i: array[i]) for i in range(2)])
    np.testing.assert_array_equal(again.obs["joints"], batch.obs["joints"])
    np.testing.assert_array_equal(again.reward, batch.reward)
    assert again.policy_version is None

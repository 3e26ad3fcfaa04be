"""Episodes as archives of NumPy, read by NumPy alone."""

from __future__ import annotations

import numpy as np
import pytest

import wm_core as wm
from tests.wm_core.recordings.outgoing.conftest import SPEC, episode
from wm_core.contract.errors import RecordingError
from wm_core.contract.inputs import VectorSpec
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.contract.step import NUMBERS
from wm_core.recordings.outgoing.export import export_store


def test_every_number_and_pixel_of_a_step_is_in_the_archive_of_its_episode(
    store, all_steps, tmp_path
):
    found = export_store(store, tmp_path / "out", "npz")
    assert (found.episodes, found.steps, found.broken) == (3, 34, 0)
    for number, steps in enumerate(all_steps):
        with np.load(tmp_path / "out" / f"episode-{number:06d}.npz", allow_pickle=False) as file:
            arrays = dict(file)
        for key in SPEC.inputs:
            np.testing.assert_array_equal(arrays[key], np.stack([s.obs[key] for s in steps]))
        np.testing.assert_array_equal(arrays["action"], np.stack([s.action for s in steps]))
        for name in (*NUMBERS, "stamp_ns"):
            assert arrays[name].tolist() == [getattr(s, name) for s in steps], name
        has = [s.requested_action is not None for s in steps]
        assert arrays["has_requested_action"].tolist() == has
        for s, row in zip(steps, arrays["requested_action"], strict=True):
            expected = np.nan if s.requested_action is None else s.requested_action
            np.testing.assert_array_equal(row, np.broadcast_to(expected, row.shape))
        assert Spec.model_validate_json(str(arrays["spec"])) == SPEC


def test_episodes_are_taken_by_from_arrays_as_they_are(store, tmp_path):
    export_store(store, tmp_path / "out", "npz")
    files = [np.load(path) for path in sorted((tmp_path / "out").glob("*.npz"))]
    names = ("image", "depth", "joints", "action", "reward", "is_terminal")
    data = wm.Episodes.from_arrays(**{n: [f[n] for f in files] for n in names})
    assert len(data) == 34


def test_an_input_that_has_the_name_of_another_array_is_refused(maker, tmp_path):
    spec = Spec(
        images={}, vectors={"reward": VectorSpec(size=2)}, action=ActionSpec(low=(-1,), high=(1,))
    )
    maker.add(episode(spec, 3, seed=0), spec)
    with pytest.raises(RecordingError, match=r"\['reward'\] have the names of other arrays"):
        export_store(maker.root, tmp_path / "out", "npz")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]

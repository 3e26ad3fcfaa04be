"""A killed learner goes on from its newest whole checkpoint, weight by weight."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks.chaos.learner import digest  # noqa: E402
from benchmarks.chaos.learner_kills import LearnerKills, run  # noqa: E402


@pytest.mark.slow
def test_a_killed_learner_goes_on_from_its_newest_checkpoint_and_misses_no_step(tmp_path):
    report = run(LearnerKills(root=tmp_path / "kills", kills=2))
    assert report.faults == []
    assert (report.kills, report.resumed_equal) == (2, 2)
    assert report.steps_seen == report.steps_stored > 0
    assert report.updates > 0


def test_states_that_differ_anywhere_have_other_digests():
    state = {"a": torch.zeros(2, 3), "b": [1, np.ones(2)]}
    same = {"b": [1, np.ones(2)], "a": torch.zeros(2, 3)}
    others = [
        {**state, "a": torch.zeros(3, 2)},
        {**state, "a": torch.zeros(2, 3, dtype=torch.float64)},
        {**state, "b": [1, np.array([1.0, 1.0000001])]},
        {**state, "c": 0},
    ]
    assert digest(state) == digest(same)
    assert digest(state) not in [digest(other) for other in others]

"""Own arrays become windows: actions are shifted there, and what does not fit is refused."""

import numpy as np
import pytest

from wm_core.contract.errors import SpecMismatch
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.replay.episodes import Episodes

N, T = 3, 5


def arrays(**changes):
    """Three episodes of five steps; every number says its place: episode n, step t is 10 n + t."""
    place = (10 * np.arange(N)[:, None] + np.arange(T)).astype(np.float32)
    image = np.broadcast_to(place[..., None, None, None], (N, T, 8, 8, 3)).astype(np.uint8)
    end = np.zeros((N, T), bool)
    end[1, -1] = True
    return {
        "image": image,
        "place": place[..., None],
        "action": place[..., None] / 100,
        "reward": place,
        "is_terminal": end,
    } | changes


def test_the_spec_is_read_off_the_arrays():
    assert Episodes.from_arrays(**arrays()).spec == Spec(
        images={"image": ImageSpec(height=8, width=8)},
        vectors={"place": VectorSpec(size=1)},
        action=ActionSpec(low=(-1.0,), high=(1.0,)),
    )


def test_every_step_stands_beside_the_action_that_led_to_it():
    data = Episodes.from_arrays(**arrays())
    for batch in data.windows(batch=4, length=6, updates=20, seed=0):
        place = batch.obs["place"][..., 0].round().astype(int)
        np.testing.assert_array_equal(batch.obs["image"][..., 0, 0, 0], place)
        np.testing.assert_array_equal(batch.is_last, place % 10 == T - 1)
        np.testing.assert_array_equal(batch.is_terminal, place == 10 + T - 1)
        first = place % 10 == 0
        np.testing.assert_array_equal(batch.is_first, first)
        np.testing.assert_allclose(
            batch.prev_action[..., 0], np.where(first, 0, (place - 1) / 100)
        )
        np.testing.assert_array_equal(batch.reward, np.where(first, 0, place))


def test_the_same_seed_draws_the_same_windows_and_all_windows_are_drawn():
    data = Episodes.from_arrays(**arrays())

    def starts(seed):
        batches = data.windows(batch=8, length=4, updates=20, seed=seed)
        return [int(k) for b in batches for k in b.key[:, 0]]

    assert starts(1) == starts(1) != starts(2)
    assert {*starts(1)} == set(range(N * T - 4 + 1))


def test_episodes_of_different_lengths_come_as_lists():
    whole = arrays()
    lists = {k: [v[0], v[1][:2], v[2][:4]] for k, v in whole.items() if k != "is_terminal"}
    data = Episodes.from_arrays(**lists)
    assert len(data) == 5 + 2 + 4
    (batch,) = data.windows(batch=1, length=11, updates=1)
    assert np.flatnonzero(batch.is_first[0]).tolist() == [0, 5, 7]
    assert np.flatnonzero(batch.is_last[0]).tolist() == [4, 6, 10]
    assert not batch.is_terminal.any()


def test_choices_are_one_hot_where_the_spec_says_so():
    spec = Spec(images={"image": ImageSpec(height=8, width=8)}, action=ActionSpec.choices(2))
    given = arrays(action=np.eye(2, dtype=np.float32)[np.zeros((N, T), int)])
    del given["place"]
    (batch,) = Episodes.from_arrays(spec=spec, **given).windows(batch=2, length=2, updates=1)
    assert batch.prev_action.shape == (2, 2, 2)
    given["action"] = np.full((N, T, 2), 0.5)
    with pytest.raises(SpecMismatch, match="one-hot"):
        Episodes.from_arrays(spec=spec, **given)


def test_episodes_without_a_sensor_are_refused():
    given = {name: arrays()[name] for name in ("action", "reward")}
    with pytest.raises(SpecMismatch, match="at least one input"):
        Episodes.from_arrays(**given)


WRONG = {
    "a float image": ({"image": np.zeros((N, T, 8, 8, 3), np.float32)}, "image.*uint8.*float32"),
    "an image of four colours": ({"image": np.zeros((N, T, 8, 8, 4), np.uint8)}, "RGB|H, W, 3"),
    "an action in other units": ({"action": np.full((N, T, 1), 2.0)}, "action.*-1 .. 1.*2"),
    "an action that is no number": ({"action": np.full((N, T, 1), np.nan)}, "action"),
    "an action without its axis": ({"action": np.zeros((N, T))}, "action"),
    "too few rewards": ({"reward": np.zeros((N, T - 1))}, "expected episodes of .*4.*got.*5"),
    "a reward that is no number": ({"reward": np.full((N, T), np.inf)}, "reward"),
    "a vector that is no number": ({"place": np.full((N, T, 1), np.nan)}, "place.*NaN"),
    "a vector too large for float32": ({"place": np.full((N, T, 1), 1e300)}, "place.*infinity"),
    "one episode without its axis": ({"reward": np.zeros(T)}, "one episode alone is array"),
    "an episode without a step": ({"reward": [np.zeros(T), np.zeros(0)]}, "at least one step"),
    "no episodes": ({"reward": np.zeros((0, T))}, "at least one step"),
    "an end in the middle": ({"is_terminal": np.eye(N, T, dtype=bool)}, "end the episode there"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused_with_what_came(case):
    changes, message = WRONG[case]
    with pytest.raises(SpecMismatch, match=message):
        Episodes.from_arrays(**arrays(**changes))


def test_a_window_longer_than_all_episodes_is_refused():
    with pytest.raises(SpecMismatch, match="at least 16 steps for a window, got 15"):
        next(Episodes.from_arrays(**arrays()).windows(batch=1, length=16, updates=1))

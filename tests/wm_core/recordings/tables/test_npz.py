"""npz episodes become steps: what each row earned arrives with the next, nothing is invented."""

from __future__ import annotations

import numpy as np
import pytest

from wm_core.contract.errors import RecordingError
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.tables.npz import open_source, recognise
from wm_core.recordings.write_store import write_store


def episode(steps=6, begin=0, **more):
    """An episode of the Dreamer papers' code: each row says its own number everywhere."""
    number = begin + np.arange(steps)
    image = np.zeros((steps, 64, 64, 3), np.uint8)
    image[...] = number[:, None, None, None]
    return {
        "image": image,
        "pose": np.stack([number, -number], 1).astype(np.float32),
        "action": np.linspace(-0.5, 0.5, steps, dtype=np.float32)[:, None],
        "reward": number.astype(np.float32) * (np.arange(steps) > 0),
        "is_first": np.arange(steps) == 0,
        "is_last": np.arange(steps) == steps - 1,
        "is_terminal": np.arange(steps) == steps - 1,
        **more,
    }


def read(path, **options):
    source = open_source(path, ReadOptions(**options))
    return source, [list(steps) for steps in source.episodes()]


def test_rows_of_a_dreamer_episode_become_steps_as_they_stand(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(6))
    np.savez_compressed(tmp_path / "b.npz", **episode(4, begin=10))
    source, episodes = read(tmp_path)
    assert [len(steps) for steps in episodes] == [6, 4]
    for steps, begin in zip(episodes, (0, 10), strict=True):
        assert [s.obs["image"][0, 0, 0] for s in steps] == [begin + i for i in range(len(steps))]
        assert [s.obs["pose"][1] for s in steps] == [-begin - i for i in range(len(steps))]
        assert [s.reward for s in steps] == [0.0, *(begin + i for i in range(1, len(steps)))]
        assert [s.is_first for s in steps] == [True] + [False] * (len(steps) - 1)
        assert [s.is_terminal for s in steps] == [False] * (len(steps) - 1) + [True]
        assert steps[-1].is_last
    assert source.spec.action.low == (-1.0,)
    assert episodes[0][0].action == np.float32(-0.5)
    stamps = [s.stamp_ns for steps in episodes for s in steps]
    assert stamps == sorted(set(stamps))
    assert stamps[1] - stamps[0] == 50_000_000
    assert not source.left_out
    assert not source.changed


def test_importing_twice_stores_nothing_twice(tmp_path):
    (tmp_path / "set").mkdir()
    for i in range(3):
        np.savez(tmp_path / "set" / f"{i}.npz", **episode(40, begin=i))
    first = write_store(open_source(tmp_path / "set", ReadOptions()), tmp_path / "store")
    again = write_store(open_source(tmp_path / "set", ReadOptions()), tmp_path / "store")
    assert (first.episodes, first.steps, first.new, first.known) == (3, 120, 2, 0)
    assert (again.new, again.known) == (0, 2)


def test_actions_that_led_to_their_row_are_moved_to_the_row_they_were_chosen_at(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(4, action=np.array([[0.0], [0.1], [0.2], [0.3]])))
    _, (steps,) = read(tmp_path, action_timing="led")
    assert [float(s.action[0]) for s in steps] == pytest.approx([0.1, 0.2, 0.3, 0.0])


def test_earned_rewards_arrive_one_step_later_and_the_last_is_not_lost(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(4, reward=np.array([1.0, 2.0, 4.0, 8.0])))
    source, (steps,) = read(tmp_path, reward_timing="earned")
    assert [s.reward for s in steps] == [0.0, 1.0, 2.0, 12.0]
    assert source.changed == {"last_reward_counted_one_step_early": 1}


def test_episodes_within_a_file_are_cut_where_one_begins(tmp_path):
    first = np.array([True, False, False, True, False, False])
    rows = episode(6, is_first=first, reward=np.array([9.0, 1, 2, 9, 4, 5]))
    del rows["is_last"], rows["is_terminal"]
    np.savez(tmp_path / "a.npz", **rows)
    source, episodes = read(tmp_path)
    assert [[s.reward for s in steps] for steps in episodes] == [[0, 1, 2], [0, 4, 5]]
    assert not any(s.is_terminal for steps in episodes for s in steps)
    assert source.changed == {"reward_before_the_first_action": 2}


@pytest.mark.parametrize("one_hot", [True, False])
def test_choices_are_recognised(tmp_path, one_hot):
    index = np.array([0, 2, 1, 2])
    np.savez(tmp_path / "a.npz", **episode(4, action=np.eye(3)[index] if one_hot else index))
    source, (steps,) = read(tmp_path)
    assert source.spec.action.discrete
    assert [int(s.action.argmax()) for s in steps] == [0, 2, 1, 2]


def test_commands_beyond_one_are_mapped_by_the_range_of_the_data_or_as_stated(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(3, action=np.array([[0.0], [5.0], [10.0]])))
    source, (steps,) = read(tmp_path)
    assert (source.spec.action.low, source.spec.action.high) == ((0.0,), (10.0,))
    assert [float(s.action[0]) for s in steps] == [-1.0, 0.0, 1.0]
    source, (steps,) = read(tmp_path, action_low=(-8.0,), action_high=(8.0,))
    assert [float(s.action[0]) for s in steps] == [0.0, 0.625, 1.0]
    assert source.changed == {"action_clipped": 1}


def test_what_is_not_finite_is_kept_apart_and_counted(tmp_path):
    rows = episode(5)
    rows["pose"][2, 0] = np.nan
    np.savez(tmp_path / "a.npz", **rows)
    source = open_source(tmp_path, ReadOptions())
    written = write_store(source, tmp_path / "store")
    assert written.steps == 5
    assert source.changed == {"not_finite_and_kept_as_invalid": 1}


def test_images_are_brought_to_the_size_asked_for_or_keep_their_own(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (3, 128, 96, 3), np.uint8)
    np.savez(tmp_path / "a.npz", **episode(3, image=image))
    assert read(tmp_path)[0].spec.images["image"].shape == (64, 64, 3)
    _, (steps,) = read(tmp_path, image_size="own")
    assert (steps[1].obs["image"] == image[1]).all()
    assert read(tmp_path, image_size="32x48")[0].spec.images["image"].shape == (32, 48, 3)
    first_channel = np.moveaxis(image, -1, 1)
    np.savez(tmp_path / "a.npz", **episode(3, image=first_channel))
    assert (read(tmp_path, image_size="own")[1][0][2].obs["image"] == image[2]).all()


@pytest.mark.parametrize(
    ("more", "options", "why"),
    [
        (
            {},
            {"action": "actoin"},
            r"unknown column of the action 'actoin'; did you mean 'action'",
        ),
        ({}, {"reward": "rewards"}, "did you mean 'reward'"),
        ({}, {"features": ("imgae",)}, "did you mean 'image'"),
        ({}, {"without": ("image", "pose")}, "no column that looks like an observation"),
        ({}, {"rename": ("pose=image", "image=pose", "pos=x")}, "did you mean 'pose'"),
        ({}, {"rename": ("pose=image",)}, r"several columns would be named \['image'\]"),
        ({"pose": np.zeros((5, 2))}, {}, r"expected 6 rows in every column.*got 5 in 'pose'"),
        ({"action": np.zeros((3, 1))}, {}, "got 3 in 'action'"),
        ({"image": np.zeros((6, 64, 64, 3), np.float32)}, {}, "expected images of uint8"),
        ({"image": np.zeros((6, 64, 64, 4), np.uint8)}, {}, r"expected images \(H, W, 3\)"),
        ({"pose": np.array(["a"] * 6)}, {}, "expected numbers"),
        ({"action": np.zeros((6, 0))}, {}, "expected 1 to"),
        ({}, {"action_low": (0.0, 1.0)}, "expected one number or 1 for --action-low"),
        ({}, {"action_low": (2.0,), "action_high": (1.0,)}, "every low must be below its high"),
        ({"seed": np.array(3)}, {}, "'seed' is one value and not one for each row"),
        ({"action": np.array(3)}, {}, "'action' is one value"),
        ({"reward": np.zeros((6, 2))}, {}, "expected one reward in a row, got 2"),
        ({}, {"fps": 1e-5}, "period_s"),
        ({}, {"action_choices": 3}, "expected one number from 0 for --action-choices"),
        ({}, {"image_size": "128"}, "smaller than the 128x128"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, more, options, why):
    np.savez(tmp_path / "a.npz", **episode(6, **more))
    with pytest.raises(RecordingError, match=why):
        read(tmp_path, **options)


def test_a_second_file_of_another_shape_is_refused_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(4))
    np.savez(tmp_path / "b.npz", **episode(4, image=np.zeros((4, 32, 32, 3), np.uint8)))
    with pytest.raises(RecordingError, match=r"b\.npz.*as before"):
        read(tmp_path)
    rows = episode(4)
    del rows["pose"]
    np.savez(tmp_path / "b.npz", **rows)
    with pytest.raises(RecordingError, match=r"b\.npz.*'pose'"):
        read(tmp_path)


def test_nothing_is_unpickled_and_damage_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", **episode(4, pose=np.array([None] * 4, object)))
    with pytest.raises(RecordingError, match=r"a\.npz: 'pose' cannot be read"):
        read(tmp_path)
    whole = (tmp_path / "a.npz").read_bytes()
    (tmp_path / "a.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecordingError, match=r"a\.npz: is no npz file"):
        read(tmp_path)


def test_empty_and_one_step_episodes_are_left_out_and_counted(tmp_path):
    for name, steps in (("a", 0), ("b", 1), ("c", 3)):
        np.savez(tmp_path / f"{name}.npz", **episode(steps))
    source, episodes = read(tmp_path)
    assert [len(steps) for steps in episodes] == [3]
    assert source.left_out == {"episode_empty": 1, "episode_of_one_step": 1}


def test_a_file_and_a_folder_are_recognised_and_nothing_else(tmp_path):
    assert not recognise(tmp_path)
    assert not recognise(tmp_path / "absent")
    np.savez(tmp_path / "a.npz", **episode(2))
    assert recognise(tmp_path)
    assert recognise(tmp_path / "a.npz")

"""HDF5 episodes of robomimic and ALOHA become steps; what a file must not do is refused."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest

from tests.wm_core.recordings.tables.conftest import jpeg, number_of, shade
from wm_core.contract.errors import RecordingError
from wm_core.recordings.formats import recordings_below
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.tables.hdf import open_source


def read(path, **options):
    source = open_source(path, ReadOptions(**options))
    return source, [list(steps) for steps in source.episodes()]


def robomimic(path, lengths=(4, 3), following=True, **more):
    """A file of robomimic; rows are numbered through, so that each says where it is from."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps(
            {"env_name": "Lift", "env_kwargs": {"control_freq": 25}}
        )
        begin = 0
        for i, steps in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            number = begin + np.arange(steps + 1)
            for group, rows in (("obs", number[:-1]), ("next_obs", number[1:])):
                if group == "next_obs" and not following:
                    continue
                demo[f"{group}/agentview_image"] = np.stack([shade(n) for n in rows])
                demo[f"{group}/eef_pos"] = np.stack([rows, rows, rows], 1).astype(np.float64)
            demo["actions"] = np.full((steps, 2), 0.25)
            demo["rewards"] = (np.arange(steps) == steps - 1).astype(np.float64)
            demo["dones"] = np.arange(steps) >= steps - 2
            demo["states"] = np.zeros((steps, 9))
            begin += steps + 1
        for name, values in more.items():
            demo = data[f"demo_{len(lengths) - 1}"]
            del demo[name.replace("__", "/")]
            if values is not None:
                demo[name.replace("__", "/")] = values
    return path


def test_robomimic_episodes_end_with_what_was_seen_after_the_last_action(tmp_path):
    path = robomimic(tmp_path / "lift.hdf5")
    assert recordings_below(tmp_path) == [(path, "hdf5")]
    source, episodes = read(path)
    assert [[number_of(s.obs["agentview_image"]) for s in e] for e in episodes] == [
        [0, 1, 2, 3, 4],
        [5, 6, 7, 8],
    ]
    assert [float(s.obs["eef_pos"][0]) for s in episodes[1]] == [5, 6, 7, 8]
    assert [s.reward for s in episodes[0]] == [0, 0, 0, 0, 1]
    assert [s.is_terminal for s in episodes[0]] == [False] * 4 + [True]
    assert float(episodes[0][0].action[0]) == 0.25
    assert (source.spec.period_s, source.task, source.spec.action.low) == (0.04, "Lift", (-1, -1))
    assert source.changed == {"done_before_the_end": 2}


def test_without_following_observations_the_last_reward_is_not_lost(tmp_path):
    source, episodes = read(robomimic(tmp_path / "lift.hdf5", following=False))
    assert [s.reward for s in episodes[0]] == [0, 0, 0, 1]
    assert episodes[0][-1].is_terminal
    assert source.changed["last_reward_counted_one_step_early"] == 2


def test_ten_follows_nine(tmp_path):
    _, episodes = read(robomimic(tmp_path / "lift.hdf5", lengths=(1,) * 12))
    assert [int(e[0].obs["eef_pos"][0]) for e in episodes] == [2 * i for i in range(12)]


@pytest.mark.parametrize("compressed", [False, True])
def test_a_folder_of_aloha_files_is_one_recording(tmp_path, compressed):
    for i in range(3):
        with h5py.File(tmp_path / f"episode_{i}.hdf5", "w") as file:
            frames = [shade(5 * i + j) for j in range(4)]
            if compressed:
                packed = [np.frombuffer(jpeg(f), np.uint8) for f in frames]
                longest = max(map(len, packed))
                frames = [np.pad(p, (0, longest - len(p))) for p in packed]
            file["observations/images/cam_high"] = np.stack(frames)
            file["observations/qpos"] = np.full((4, 2), i, np.float32)
            file["action"] = np.full((4, 2), 3.0 * i, np.float32)
    assert recordings_below(tmp_path) == [(tmp_path, "hdf5")]
    source, episodes = read(tmp_path, fps=50)
    assert [[number_of(s.obs["cam_high"]) for s in e] for e in episodes] == [
        [0, 1, 2, 3],
        [5, 6, 7, 8],
        [10, 11, 12, 13],
    ]
    assert source.spec.action.high == (6.0, 6.0)
    assert [float(e[0].action[0]) for e in episodes] == [-1, 0, 1]
    assert source.spec.period_s == 0.02


@pytest.mark.parametrize(
    ("more", "options", "why"),
    [
        (
            {},
            {"action": "action"},
            "unknown column of the action 'action'; did you mean 'actions'",
        ),
        ({}, {"features": ("agentview_imge",)}, "did you mean 'agentview_image'"),
        ({"actions": None}, {}, r"demo_1: unknown column of the episode 'actions'"),
        ({"actions": np.zeros((1, 2))}, {}, r"demo_1: expected 4 rows .* got 1 in 'action'"),
        ({"actions": np.zeros((3, 3))}, {}, "expected actions of 2 numbers, as before, got 3"),
        ({"obs__eef_pos": np.zeros((3, 2))}, {}, "demo_1"),
        ({"obs__eef_pos": None}, {}, r"demo_1: unknown column of the episode 'obs/eef_pos'"),
        ({"obs__agentview_image": np.zeros((3, 32, 32, 3), np.uint8)}, {}, "demo_1"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(tmp_path, more, options, why):
    path = robomimic(tmp_path / "lift.hdf5", **more)
    with pytest.raises(RecordingError, match=why):
        read(path, **options)


def test_links_to_other_files_and_references_are_not_followed(tmp_path):
    other = robomimic(tmp_path / "other.hdf5", lengths=(3,))
    path = tmp_path / "lift.hdf5"
    robomimic(path, lengths=(3, 3))
    with h5py.File(path, "a") as file:
        demo = file["data/demo_1"]
        del demo["obs/eef_pos"]
        demo["obs/eef_pos"] = h5py.ExternalLink(other.name, "/data/demo_0/obs/eef_pos")
    with pytest.raises(RecordingError, match="unknown column of the episode 'obs/eef_pos'"):
        read(path)
    with h5py.File(path, "a") as file:
        for name in ("demo_0", "demo_1"):
            demo = file[f"data/{name}"]
            del demo["obs/eef_pos"], demo["next_obs"]
            demo["obs/eef_pos"] = np.array([demo.ref] * 3, h5py.ref_dtype)
    with pytest.raises(RecordingError, match="expected numbers, got object"):
        read(path)


def test_damage_is_named(tmp_path):
    path = robomimic(tmp_path / "lift.hdf5")
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(RecordingError, match=r"lift\.hdf5: is no HDF5 file that can be read"):
        read(path)
    with h5py.File(path, "w") as file:
        file["something"] = 1
    with pytest.raises(RecordingError, match="expected episodes data/demo_N"):
        read(path)

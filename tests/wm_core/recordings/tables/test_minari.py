"""Minari sets that the library itself writes become steps, in each of its formats."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from gymnasium import spaces

from tests.wm_core.recordings.tables.conftest import number_of, shade
from wm_core.contract.errors import RecordingError
from wm_core.recordings.formats import recordings_below
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.tables.minari import open_source

FORMATS = ["hdf5", "arrow", "parquet"]


def read(path, **options):
    source = open_source(path, ReadOptions(**options))
    return source, [list(steps) for steps in source.episodes()]


@pytest.fixture
def minari_set(tmp_path, monkeypatch):
    """Writes a set of two episodes of three actions by the library; gives its folder."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    minari = pytest.importorskip("minari")
    from minari.data_collector import EpisodeBuffer

    def write(kind, observation_space, action_space, observe, act):
        buffers = [
            EpisodeBuffer(
                id=i,
                observations=observe(np.arange(4) + 4 * i),
                actions=act(np.arange(3)),
                rewards=[1.0, 2.0, 4.0],
                terminations=[False, False, i == 0],
                truncations=[False, False, i == 1],
                infos={},
            )
            for i in range(2)
        ]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that nobody says who made it
            minari.create_dataset_from_buffers(
                "made/set-v0",
                buffer=buffers,
                observation_space=observation_space,
                action_space=action_space,
                data_format=kind,
            )
        return tmp_path / "made" / "set-v0"

    return write


@pytest.mark.parametrize("kind", FORMATS)
def test_rewards_find_the_observation_that_they_arrived_with(minari_set, kind):
    root = minari_set(
        kind,
        spaces.Box(-9, 9, (2,)),
        spaces.Box(np.float32([-2, 0]), np.float32([2, 4])),
        lambda n: np.stack([n, -n], 1).astype(np.float32),
        lambda n: np.stack([n - 1, n + 1], 1).astype(np.float32),
    )
    assert recordings_below(root.parent) == [(root, "minari")]
    source, episodes = read(root)
    assert [[float(s.obs["observation"][0]) for s in e] for e in episodes] == [
        [0, 1, 2, 3],
        [4, 5, 6, 7],
    ]
    assert [s.reward for s in episodes[1]] == [0, 1, 2, 4]
    assert [e[-1].is_terminal for e in episodes] == [True, False]
    assert [s.action.tolist() for s in episodes[0]] == [[-0.5, -0.5], [0, 0], [0.5, 0.5], [0, 0]]
    assert source.spec.action.high == (2.0, 4.0)
    assert (source.name, source.task) == ("made_set-v0", "made/set-v0")
    assert not source.left_out
    assert not source.changed


@pytest.mark.parametrize("kind", FORMATS)
def test_dictionaries_with_images_and_choices(minari_set, kind):
    root = minari_set(
        kind,
        spaces.Dict(
            camera=spaces.Box(0, 255, (64, 64, 3), np.uint8),
            arm=spaces.Dict(x=spaces.Box(-9, 9, (1,), np.float64), where=spaces.Discrete(9)),
        ),
        spaces.Discrete(3, start=5),
        lambda n: {
            "camera": np.stack([shade(i) for i in n]),
            "arm": {"x": n[:, None].astype(np.float64), "where": n},
        },
        lambda n: n + 5,
    )
    source, episodes = read(root)
    assert set(source.spec.inputs) == {"camera", "arm_x", "arm_where"}
    for episode, begin in zip(episodes, (0, 4), strict=True):
        numbers = list(range(begin, begin + 4))
        assert [number_of(s.obs["camera"]) for s in episode] == numbers
        assert [int(s.obs["arm_x"][0]) for s in episode] == numbers
        assert [int(s.obs["arm_where"][0]) for s in episode] == numbers
        assert [s.action.tolist() for s in episode] == [*np.eye(3).tolist(), [0, 0, 0]]


@pytest.mark.parametrize("kind", ["hdf5", "arrow"])
def test_damage_and_wrong_columns_are_named(minari_set, kind):
    root = minari_set(
        kind,
        spaces.Box(-9, 9, (2,)),
        spaces.MultiDiscrete([2, 3]),
        lambda n: np.stack([n, -n], 1).astype(np.float32),
        lambda n: np.stack([n % 2, n], 1),
    )
    source, episodes = read(root)
    assert source.spec.action.groups == (2, 3)
    assert episodes[0][1].action.tolist() == [0, 1, 0, 1, 0]
    with pytest.raises(RecordingError, match="did you mean 'observation'"):
        read(root, features=("observatoin",))
    with pytest.raises(RecordingError, match=r"names its own columns: leave out --reward$"):
        read(root, reward="none")
    path = max((p for p in root.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(RecordingError, match=f"{path.name}: is no .* that can be read"):
        read(root)
    meta = root / "data" / "metadata.json"
    meta.write_text(meta.read_text().replace(f'"{kind}"', '"zarr"'))
    with pytest.raises(RecordingError, match="expected data_format hdf5, arrow or parquet"):
        read(root)

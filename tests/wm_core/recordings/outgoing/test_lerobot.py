"""LeRobot datasets, read by pyarrow, Pillow and PyAV, as LeRobot's own loader reads them."""

from __future__ import annotations

import io
import json

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.wm_core.recordings.outgoing.conftest import ONE_VECTOR, SPEC, episode, same
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS, Step
from wm_core.recordings.outgoing.export import export_store
from wm_core.recordings.outgoing.lerobot import tables, video


def table_of(folder):
    paths = sorted(folder.glob("*/*.parquet"))
    return pa.concat_tables([pq.read_table(path) for path in paths])


def info_of(out, name="info"):
    return json.loads((out / "meta" / f"{name}.json").read_text())


def step_of(row, names):
    """A step of a row of the table, by what the dataset says of itself."""
    obs = {}
    for key, sensor in SPEC.inputs.items():
        value = row[names[key]]
        if key in SPEC.images:
            value = np.array(Image.open(io.BytesIO(value["bytes"])))
        obs[key] = np.array(value, sensor.dtype).reshape(sensor.shape)
    requested = np.array(row["requested_action"], np.float32)
    return Step(
        obs=obs,
        action=np.array(row["action"], np.float32),
        requested_action=requested if row["has_requested_action"] else None,
        stamp_ns=row["stamp_ns"],
        **{name: row[name] for name in NUMBERS},
    )


def test_every_step_comes_back_bit_for_bit(store, all_steps, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, "lerobot")
    names = info_of(out, "wm_ros")["features"]
    assert Spec.model_validate(info_of(out, "wm_ros")["spec"]) == SPEC
    steps = [step for steps in all_steps for step in steps]
    rows = table_of(out / "data").to_pylist()
    assert len(rows) == len(steps)
    assert all(same(s, step_of(row, names)) for s, row in zip(steps, rows, strict=True))


def test_rows_have_the_columns_that_the_loader_asks_for(store, all_steps, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, "lerobot")
    info, table = info_of(out), table_of(out / "data")
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["fps"]) == (3, 34, 10)
    assert sorted(info["features"]) == sorted(table.column_names)
    for name, feature in info["features"].items():  # what `datasets` would cast them to
        kind = table.schema.field(name).type
        if feature["dtype"] == "image":
            assert [f.name for f in kind] == ["bytes", "path"]
        elif feature["shape"] == [1]:
            assert str(kind) == {"float32": "float", "float64": "double"}.get(
                feature["dtype"], feature["dtype"]
            )
        else:
            assert pa.types.is_fixed_size_list(kind)
            assert kind.list_size == feature["shape"][0]
    rows = table.to_pylist()
    assert [row["index"] for row in rows] == list(range(34))
    lengths = [len(steps) for steps in all_steps]
    assert [row["frame_index"] for row in rows] == [t for n in lengths for t in range(n)]
    np.testing.assert_allclose(rows[7]["timestamp"], 0.7, atol=1e-6)


def test_the_reward_stands_in_the_row_of_the_action_that_earned_it(store, all_steps, tmp_path):
    export_store(store, tmp_path / "out", "lerobot")
    rows = table_of(tmp_path / "out" / "data").to_pylist()
    first = all_steps[0]
    got = [row["next.reward"] for row in rows[: len(first)]]
    np.testing.assert_allclose(got[:-1], [s.reward for s in first[1:]], rtol=1e-6)
    assert got[-1] == 0.0
    done = [row["next.done"] for row in rows[: len(first)]]
    assert done == [False] * (len(first) - 2) + [True, True]


def test_episodes_and_tasks_say_where_their_rows_are(store, all_steps, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, "lerobot")
    episodes = table_of(out / "meta" / "episodes").to_pylist()
    assert [e["length"] for e in episodes] == [len(steps) for steps in all_steps]
    assert [e["dataset_from_index"] for e in episodes] == [0, 20, 29]
    assert [e["dataset_to_index"] for e in episodes] == [20, 29, 34]
    assert [e["tasks"] for e in episodes] == [["seek"]] * 3
    assert [(e["robot"], e["first_step"]) for e in episodes] == [
        ("robot1", 0), ("robot1", 20), ("robot2", 0)
    ]  # fmt: skip
    assert {(e["data/chunk_index"], e["data/file_index"]) for e in episodes} == {(0, 0)}
    tasks = pq.read_table(out / "meta" / "tasks.parquet")
    assert tasks.to_pylist() == [{"task_index": 0, "task": "seek"}]
    assert json.loads(tasks.schema.metadata[b"pandas"])["index_columns"] == ["task"]


def test_statistics_are_those_of_the_columns(store, all_steps, tmp_path):
    out = tmp_path / "out"
    export_store(store, out, "lerobot")
    stats = info_of(out, "stats")
    steps = [step for steps in all_steps for step in steps]
    action = np.stack([s.action for s in steps]).astype(float)
    for name, expected in {
        "min": action.min(0), "max": action.max(0), "mean": action.mean(0), "std": action.std(0),
        "q50": np.quantile(action, 0.5, axis=0),
    }.items():  # fmt: skip
        np.testing.assert_allclose(stats["action"][name], expected, rtol=1e-6)
    image = np.stack([s.obs["image"] for s in steps]) / 255.0
    got = stats["observation.images.image"]
    np.testing.assert_allclose(np.ravel(got["mean"]), image.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(np.ravel(got["std"]), image.std((0, 1, 2)), rtol=1e-6)
    assert np.shape(got["q01"]) == (3, 1, 1)
    assert got["count"] == [34]
    assert np.shape(stats["observation.images.depth"]["max"]) == (1, 1, 1)
    depth = max(s.obs["depth"].max() for s in steps)
    assert np.ravel(stats["observation.images.depth"]["max"]) == [depth]


def test_one_vector_is_the_state_and_chunks_of_another_spec_are_counted(maker, tmp_path):
    maker.add(episode(ONE_VECTOR, 12, seed=0), ONE_VECTOR)
    maker.add(episode(SPEC, 4, seed=0), SPEC, robot="other", session="c" * 32)
    found = export_store(maker.root, tmp_path / "out", "lerobot")
    assert (found.episodes, dict(found.left_out)) == (1, {"other_spec": 4})
    features = info_of(tmp_path / "out")["features"]
    assert features["observation.state"]["shape"] == [2]
    assert features["action"]["shape"] == [3]


def test_video_has_a_frame_at_the_time_of_each_row_and_other_cameras_stay_exact(maker, tmp_path):
    shades = [10 * t for t in range(20)]
    steps = episode(SPEC, 20, seed=0)
    for step, shade in zip(steps, shades, strict=True):
        step.obs["image"][:] = shade
    maker.add(steps[:12], SPEC)
    maker.add(steps[12:], SPEC, skip=5)
    out = tmp_path / "out"
    export_store(maker.root, out, "lerobot", video=True)
    info = info_of(out)
    name = "observation.images.image"
    assert info["features"][name]["dtype"] == "video"
    table = table_of(out / "data")
    assert name not in table.column_names
    episodes = table_of(out / "meta" / "episodes").to_pylist()
    with av.open(str(out / f"videos/{name}/chunk-000/file-000.mp4")) as opened:
        frames = {
            float(f.pts * f.time_base): f.to_ndarray(format="rgb24")
            for f in opened.decode(video=0)
        }
    times = np.array(sorted(frames))
    got = []
    for row in table.to_pylist():
        begin_s = episodes[row["episode_index"]][f"videos/{name}/from_timestamp"]
        at = times[np.abs(times - begin_s - row["timestamp"]).argmin()]
        assert abs(at - begin_s - row["timestamp"]) < 1e-4
        got.append(frames[at].mean())
    assert len(times) == 20
    np.testing.assert_allclose(got, shades, atol=6)
    grey = Image.open(io.BytesIO(table.to_pylist()[5]["observation.images.grey"]["bytes"]))
    np.testing.assert_array_equal(np.array(grey), steps[5].obs["grey"][..., 0])


def test_an_export_goes_on_in_other_files_when_one_is_full(
    store, all_steps, tmp_path, monkeypatch
):
    monkeypatch.setattr(tables, "FILE_BYTES", 1)
    monkeypatch.setattr(video, "FILE_BYTES", 1)
    monkeypatch.setattr(tables.EpisodeFile, "_WAITING", 1)
    monkeypatch.setattr(tables, "_GROUP_BYTES", 1000)
    out = tmp_path / "out"
    export_store(store, out, "lerobot", video=True)
    episodes = table_of(out / "meta" / "episodes").to_pylist()
    assert [e["data/file_index"] for e in episodes] == [0, 1, 2]
    for e, steps in zip(episodes, all_steps, strict=True):
        rows = pq.read_table(out / f"data/chunk-000/file-{e['data/file_index']:03d}.parquet")
        assert [row["stamp_ns"] for row in rows.to_pylist()] == [s.stamp_ns for s in steps]
        name = "videos/observation.images.image"
        assert e[f"{name}/from_timestamp"] == 0.0
        path = out / name / f"chunk-000/file-{e[f'{name}/file_index']:03d}.mp4"
        with av.open(str(path)) as opened:
            assert sum(1 for _ in opened.decode(video=0)) == len(steps)


def test_the_thousandth_file_is_in_another_folder(tmp_path):
    files = tables.NumberedFiles(tmp_path, ".parquet")
    names = [str(files.next().relative_to(tmp_path)) for _ in range(1002)]
    assert names[999:] == [
        f"chunk-{n}.parquet" for n in ("000/file-999", "001/file-000", "001/file-001")
    ]


def test_a_rate_that_is_no_whole_number_keeps_frames_and_rows_together(maker, tmp_path):
    spec = SPEC.model_copy(update={"period_s": 0.03})
    maker.add(episode(spec, 40, seed=0), spec)
    export_store(maker.root, tmp_path / "out", "lerobot", video=True)
    assert info_of(tmp_path / "out")["fps"] == pytest.approx(100 / 3)
    rows = table_of(tmp_path / "out" / "data").to_pylist()
    path = tmp_path / "out" / "videos/observation.images.image/chunk-000/file-000.mp4"
    with av.open(str(path)) as opened:
        times = [float(frame.pts * frame.time_base) for frame in opened.decode(video=0)]
    np.testing.assert_allclose(times, [row["timestamp"] for row in rows], atol=1e-4)


@pytest.mark.parametrize("format", ["rosbag2", "mcap", "npz"])
def test_video_is_refused_where_a_format_has_none(format, store, tmp_path):
    from wm_core.contract.errors import RecordingError

    with pytest.raises(RecordingError, match="leave --video away"):
        export_store(store, tmp_path / "out", format, video=True)

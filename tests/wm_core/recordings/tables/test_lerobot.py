"""LeRobot sets of every version become steps: each frame at its row, each reward in time."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.wm_core.recordings.tables.conftest import number_of, png, shade, write_video
from wm_core.contract.errors import RecordingError
from wm_core.recordings.formats import format_of
from wm_core.recordings.options import ReadOptions
from wm_core.recordings.tables.lerobot import open_source
from wm_core.recordings.write_store import write_store

KINDS = [("v3.0", "video"), ("v3.0", "image"), ("v2.1", "video"), ("v2.0", "image")]


def read(path, **options):
    source = open_source(path, ReadOptions(**options))
    return source, [list(steps) for steps in source.episodes()]


@pytest.mark.parametrize(("version", "camera"), KINDS)
def test_each_row_becomes_a_step_with_its_own_frame(lerobot_set, version, camera):
    root = lerobot_set(version=version, camera=camera).write()
    assert format_of(root) == "lerobot"
    source, episodes = read(root)
    assert [len(steps) for steps in episodes] == [5, 4]
    steps = [step for steps in episodes for step in steps]
    assert [number_of(s.obs["front"]) for s in steps] == list(range(9))
    assert [int(s.obs["state"][0]) for s in steps] == list(range(9))
    assert [float(s.action[0]) for s in steps] == [i / 4 - 1 for i in range(9)]
    assert [s.is_first for s in steps] == [i in (0, 5) for i in range(9)]
    assert [s.is_last for s in steps] == [i in (4, 8) for i in range(9)]
    assert not any(s.is_terminal or s.reward for s in steps)
    assert (source.name, source.task, source.spec.period_s) == ("so101", "wave", 0.1)
    assert steps[1].stamp_ns - steps[0].stamp_ns == pytest.approx(100_000_000, abs=10)
    assert not source.left_out
    assert not source.changed


def test_images_in_tables_are_read_without_loss(lerobot_set):
    made = lerobot_set(camera="image")
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (64, 64, 3), np.uint8) for _ in range(9)]
    made.columns[made.key] = [{"bytes": png(f), "path": None} for f in frames]
    _, episodes = read(made.write())
    images = [step.obs["front"] for steps in episodes for step in steps]
    assert all((a == b).all() for a, b in zip(images, frames, strict=True))


def test_what_an_action_earned_arrives_with_the_next_step(lerobot_set):
    done = np.array([False, False, False, False, True, False, True, False, False])
    made = lerobot_set(camera=None).add("next.reward", np.arange(9.0, dtype=np.float32))
    source, episodes = read(made.add("next.done", done, "bool").write())
    assert [s.reward for s in episodes[0]] == [0, 0, 1, 2, 3 + 4]
    assert [s.reward for s in episodes[1]] == [0, 5, 6, 7 + 8]
    assert [s.is_terminal for s in episodes[0]] == [False] * 4 + [True]
    assert not any(s.is_terminal for s in episodes[1])
    assert source.changed == {"last_reward_counted_one_step_early": 2, "done_before_the_end": 1}
    _, episodes = read(made.root, done_means="truncated", reward="none")
    assert not any(s.is_terminal or s.reward for steps in episodes for s in steps)


@pytest.mark.parametrize("version", ["v3.0", "v2.1"])
def test_rows_without_a_frame_are_left_out_and_no_other_frame_takes_their_place(
    lerobot_set, version
):
    made = lerobot_set((9,), version=version)
    made.video = {"skip": (4, 8)}
    source, episodes = read(made.write())
    numbers = [[number_of(s.obs["front"]) for s in steps] for steps in episodes]
    assert numbers == [[0, 1, 2, 3], [5, 6, 7]]
    assert [[int(s.obs["state"][0]) for s in steps] for steps in episodes] == numbers
    assert source.left_out == {"frame_missing": 2}


def test_a_jump_in_time_ends_an_episode(lerobot_set):
    made = lerobot_set((6,), camera=None)
    made.columns["timestamp"] = np.array([0, 0.1, 0.2, 3.0, 3.1, 3.05], np.float32)
    source, episodes = read(made.write())
    assert [len(steps) for steps in episodes] == [3, 2]
    assert source.left_out == {"time_does_not_grow": 1}
    assert source.changed == {"gap_in_time": 1}


def test_steps_with_nan_are_kept_apart_and_counted(lerobot_set, tmp_path):
    made = lerobot_set(camera=None)
    made.columns["observation.state"][3, 1] = np.nan
    made.columns["action"][6] = np.inf
    source = open_source(made.write(), ReadOptions())
    assert source.spec.action.high == (8.0, 1.0)
    written = write_store(source, tmp_path / "store")
    assert written.steps == 9
    assert source.changed == {"not_finite_and_kept_as_invalid": 2}


def test_an_action_that_never_changes_has_bounds_around_it(lerobot_set):
    made = lerobot_set(camera=None)
    made.columns["action"][:, 1] = 3.0
    source, episodes = read(made.write())
    assert (source.spec.action.low[1], source.spec.action.high[1]) == (2.0, 4.0)
    assert {float(s.action[1]) for steps in episodes for s in steps} == {0.0}


def test_actions_that_are_choices(lerobot_set):
    made = lerobot_set(camera=None).add("action", np.arange(9) % 3, "int64")
    source, episodes = read(made.write())
    assert source.spec.action.kind == "3 choices"
    assert [int(s.action.argmax()) for s in episodes[0]] == [0, 1, 2, 0, 1]
    assert read(made.root, action_choices=5)[0].spec.action.size == 5


def test_whole_numbers_that_are_no_choices_have_a_range(lerobot_set):
    made = lerobot_set(camera=None).add("action", np.arange(9) * 100 - 400, "int64")
    source, episodes = read(made.write())
    assert (source.spec.action.low, source.spec.action.high) == ((-400.0,), (400.0,))
    assert float(episodes[0][1].action[0]) == -0.75
    assert "--action-low" in " ".join(source.notes)


def test_vectors_that_are_too_long_are_refused(lerobot_set):
    made = lerobot_set(camera=None).add("observation.cloud", np.zeros((9, 1)), shape=[70000])
    with pytest.raises(RecordingError, match=r"observation\.cloud: expected 1 to 65536"):
        read(made.write())


def test_columns_are_chosen_named_and_flattened(lerobot_set):
    made = lerobot_set(camera=None).add("env.grid", np.zeros((9, 4)), shape=[2, 2])
    made.add("observation.velocity", np.ones((9, 3)), shape=[3]).write()
    assert list(read(made.root)[0].spec.vectors) == ["state", "velocity"]
    source, _ = read(
        made.root, features=("env.grid", "observation.state"), rename=("observation.state=pose",)
    )
    assert {k: v.size for k, v in source.spec.vectors.items()} == {"pose": 2, "env_grid": 4}


def test_a_set_of_states_alone_and_empty_episodes(lerobot_set):
    source, episodes = read(lerobot_set((3, 0, 1, 2), version="v2.1", camera=None).write())
    assert [len(steps) for steps in episodes] == [3, 2]
    assert source.left_out == {"episode_empty": 1, "episode_of_one_step": 1}


def info(**more):
    return lambda root: (root / "meta/info.json").write_text(
        json.dumps(json.loads((root / "meta/info.json").read_text()) | more)
    )


def repeat_episodes(root):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    pq.write_table(pa.concat_tables([table, table]), path)


def video(frames, **options):
    return lambda root: write_video(next(root.rglob("*.mp4")), frames, **{"fps": 10, **options})


def cut(pattern, keep):
    def damage(root):
        path = next(root.rglob(pattern))
        path.write_bytes(path.read_bytes()[:keep])

    return damage


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize("pattern", ["*.mp4", "data/*/*.parquet", "meta/info.json"])
def test_pointers_of_git_lfs_are_told_from_damage(lerobot_set, pattern):
    root = lerobot_set().write()
    next(root.rglob(pattern)).write_bytes(POINTER)
    with pytest.raises(RecordingError, match=r"pointer of Git LFS.*git lfs pull"):
        read(root)


@pytest.mark.parametrize(
    ("damage", "options", "why"),
    [
        (info(codebase_version="v1.6"), {}, r"expected codebase_version v2.0, .* got 'v1.6'"),
        (info(codebase_version=None), {}, "expected codebase_version"),
        (info(fps=0), {}, "expected fps above 0"),
        (info(features={}), {}, "expected features"),
        (info(data_path="../{chunk_index}.parquet"), {}, "expected paths below the set"),
        (info(data_path="/etc/{chunk_index}.parquet"), {}, "expected paths below the set"),
        (info(data_path="{chunk_index.__class__}"), {}, "this file is missing"),
        (info(data_path="data/{nothing}.parquet"), {}, "asks for 'nothing'"),
        (info(chunks_size="many", fps="10"), {}, "expected fps above 0"),
        (info(fps=1e-6), {}, "frames per second"),
        (repeat_episodes, {}, "list episode 0 more than once"),
        (lambda root: (root / "meta/wm_ros.json").write_text("[1]"), {}, "expected an object"),
        (lambda root: (root / "meta/wm_ros.json").write_text('{"a": 1}'), {}, "does not fit"),
        (None, {"rename": ("observation.state=my state",)}, "names of letters, digits and _"),
        (None, {"rename": ("observation.state=action",)}, "other than action and step"),
        (info(fps=30), {}, r"file-000\.mp4: expected 30 frames per second.*got 10"),
        (video([shade(i, 32) for i in range(9)]), {}, "of 64x64, as info.json says, got 32x32"),
        (video([shade(i) for i in range(9)], fps=25), {}, "expected 10 frames per second.*got 25"),
        (cut("*.mp4", 200), {}, r"file-000\.mp4: is no video"),
        (lambda root: next(root.rglob("*.mp4")).unlink(), {}, "missing; .*--without observation"),
        (cut("data/*/*.parquet", 100), {}, r"file-000\.parquet: is no parquet file"),
        (cut("meta/episodes/*/*.parquet", 100), {}, r"file-000\.parquet: is no parquet file"),
        (cut("meta/info.json", 100), {}, "is no JSON that can be read"),
        (None, {"action": "actions"}, "unknown column of the action 'actions'; did you mean 'act"),
        (None, {"features": ("observation.stat",)}, "did you mean 'observation.state'"),
        (None, {"reward": "next.reward"}, "unknown column of the reward"),
        (None, {"fps": 20.0}, "says 10 fps; leave out --fps 20"),
        (None, {"action_low": (1.0, 2.0, 3.0)}, "expected one number or 2 for --action-low"),
        (None, {"image_size": "128"}, "smaller than the 128x128"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(lerobot_set, damage, options, why):
    root = lerobot_set().write()
    if damage:
        damage(root)
    with pytest.raises(RecordingError, match=why):
        read(root, **options)


def test_rows_of_another_number_than_stated_are_refused(lerobot_set):
    made = lerobot_set((3, 3), version="v2.1", camera=None)
    root = made.write()
    made.put(made._table(0, 2, 0), "data/chunk-000/episode_000000.parquet")
    with pytest.raises(RecordingError, match=r"expected 3 rows of episode 0.*got 2"):
        read(root)


def test_a_column_that_the_table_lacks_is_named(lerobot_set):
    made = lerobot_set(camera=None)
    made.features["observation.stat"] = ("float32", [2])
    with pytest.raises(RecordingError, match=r"unknown column 'observation\.stat'; did you mean"):
        read(made.write())


def test_a_camera_must_not_change_its_size(lerobot_set):
    made = lerobot_set(camera="image")
    made.columns[made.key][7] = {"bytes": png(shade(7, 32)), "path": None}
    with pytest.raises(RecordingError, match=r"expected images \(64, 64, 3\), got \(32, 32, 3\)"):
        read(made.write())


def test_an_image_that_is_missing_or_no_image(lerobot_set):
    made = lerobot_set(camera="image")
    made.columns[made.key][7] = None
    source, episodes = read(made.write())
    assert [len(steps) for steps in episodes] == [5, 2]
    assert source.left_out == {"frame_missing": 1, "episode_of_one_step": 1}
    made.columns[made.key][7] = {"bytes": b"no image", "path": None}
    with pytest.raises(RecordingError, match="an image cannot be read"):
        read(made.write())


def test_files_are_found_by_name_where_the_template_is_wrong(lerobot_set):
    made = lerobot_set(version="v2.1")
    made.info = {"data_path": "data/chunk-{episode_index:03d}/episode_{episode_index:06d}.parquet"}
    made.info["video_path"] = "videos/chunk-{episode_index:03d}/{video_key}/x.mp4"
    assert [len(steps) for steps in read(made.write())[1]] == [5, 4]


def test_times_count_whether_info_declares_them_or_not(lerobot_set):
    made = lerobot_set((4,), camera=None)
    made.columns["timestamp"] = np.array([0, 0.1, 2.0, 2.1])
    root = made.write()
    info_file = root / "meta" / "info.json"
    said = json.loads(info_file.read_text())
    del said["features"]["timestamp"], said["features"]["frame_index"]
    info_file.write_text(json.dumps(said))
    assert [len(steps) for steps in read(root)[1]] == [2, 2]


def test_the_fingerprint_follows_bytes_and_mapping(lerobot_set):
    root = lerobot_set(camera=None).write()
    same = [open_source(root, ReadOptions()).fingerprint for _ in range(2)]
    assert same[0] == same[1]
    other = open_source(root, ReadOptions(action_low=(-9.0,), action_high=(9.0,))).fingerprint
    lerobot_set((4, 5), camera=None).write()
    assert len({same[0], other, open_source(root, ReadOptions()).fingerprint}) == 3

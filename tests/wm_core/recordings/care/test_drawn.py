"""``wm data show`` draws what an episode holds, whatever kinds of sensor and action it has."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.wm_core.recordings.care.conftest import SESSION, SPEC, changed, play
from wm_core.contract.inputs import Depth
from wm_core.contract.spec import ActionSpec, ImageSpec, Spec, VectorSpec
from wm_core.recordings.care.episodes import find_episode
from wm_core.recordings.care.place import reading
from wm_core.recordings.care.played import play_episode

NAME = SESSION[:8]


@pytest.fixture
def draw(wm, tmp_path):
    """Draws an episode; the pictures by the end of their names."""

    def call(*words):
        to = tmp_path / "pictures"
        status, out, err = wm("show", "--to", to, *words)
        assert status == 0, err
        paths = sorted(to.iterdir())
        assert out.split() == [str(path) for path in paths]
        return {
            path.stem.rpartition("_")[2]: Image.open(io.BytesIO(path.read_bytes()))
            for path in paths
        }

    return call


def test_the_sheet_shows_the_frames_in_order_and_the_film_all_of_them(record, draw):
    steps = play(2, 50)
    record(steps)
    drawn = draw(f"{NAME}.1", "--frames", "4", "--columns", "2", "--gif", "--gif-frames", "10")
    sheet = np.asarray(drawn["frames"].convert("RGB"))
    frame = np.repeat(np.repeat(steps[50].obs["image"], 6, 0), 6, 1)  # 16 to 96 pixels
    places = [
        (y, x)
        for y in range(sheet.shape[0] - 95)
        for x in range(20)
        if np.array_equal(sheet[y : y + 96, x : x + 96], frame)
    ]
    assert len(places) == 1
    assert drawn["film"].n_frames == 10
    assert min(drawn["plot"].size) > 300


def test_the_steps_of_an_episode_come_back_as_they_were_stored(record, root):
    steps = play(3, 37)
    record(steps)
    with reading(root) as ledger:
        played = play_episode(root, ledger, find_episode(root, ledger, f"{NAME}.1"), most_frames=5)
    own = steps[37:74]
    assert played.reward.tolist() == [s.reward for s in own]
    assert np.array_equal(played.action, [s.action for s in own])
    assert np.array_equal(played.vectors["joints"], [s.obs["joints"] for s in own])
    assert played.flags["is_last"].tolist() == [False] * 36 + [True]
    assert played.shown.tolist() == [0, 9, 18, 27, 36]
    seen = [own[i].obs["image"] for i in (0, 9, 18, 27, 36)]
    assert np.array_equal(played.frames["image"], seen)
    assert played.time_s[1] == pytest.approx(0.05)


def test_last_best_and_worst_are_found_by_what_they_are(record, root):
    steps = play(3, 20)
    rewards = [5.0, 9.0, -2.0]
    steps = [replace(s, reward=rewards[i // 20] * (not s.is_first)) for i, s in enumerate(steps)]
    record(steps)
    with reading(root) as ledger:
        found = [find_episode(root, ledger, w).number for w in ("last", "best", "worst")]
    assert found == [2, 1, 2]


MANY = {"scan": VectorSpec(size=40), "joints": VectorSpec(size=2)}
BOTH = ActionSpec(low=(-1.0,) * 2, high=(1.0,) * 2)


def with_everything(step):
    obs = {
        "image": step.obs["image"],
        "depth": np.full((12, 24, 1), 700, np.uint16),
        "scan": np.linspace(0, 1, 40, dtype=np.float32),
        "joints": step.obs["joints"],
    }
    return replace(step, obs=obs)


def with_a_choice(step):
    action = np.zeros(3, np.float32)
    action[1] = 1
    return replace(step, obs={"joints": step.obs["joints"]}, action=action)


KINDS = {
    "two cameras and a scan": (
        Spec(
            images={"image": ImageSpec(height=16, width=16), "depth": Depth(height=12, width=24)},
            vectors=MANY,
            action=BOTH,
        ),
        lambda steps: [with_everything(s) for s in steps],
        {"frames", "plot", "film"},
    ),
    "no camera and choices": (
        Spec(images={}, vectors={"joints": VectorSpec(size=2)}, action=ActionSpec.choices(3)),
        lambda steps: [with_a_choice(s) for s in steps],
        {"plot"},
    ),
    "one step": (
        SPEC,
        lambda steps: [replace(steps[0], is_last=True)],
        {"frames", "plot", "film"},
    ),
    "numbers that are none": (
        SPEC,
        lambda steps: changed(
            steps, range(3, 6), reward=float("nan"), obs={"joints": np.array([np.inf, 0], "<f4")}
        ),
        {"frames", "plot", "film"},
    ),
    "a person": (
        SPEC,
        lambda steps: changed(steps, range(4, 20), is_intervention=True),
        {"frames", "plot", "film"},
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_episode_is_drawn(record, draw, kind):
    spec, change, pictures = KINDS[kind]
    record(change(play(1, 20)), spec=spec)
    drawn = draw("last", "--gif")
    assert set(drawn) == pictures
    for picture in drawn.values():
        picture.load()


def test_a_damaged_chunk_is_named_and_nothing_is_drawn(record, file_of, wm, tmp_path):
    keys = record(play(1, 40))
    data = file_of(keys[1]).read_bytes()
    file_of(keys[1]).write_bytes(data[:-9] + bytes(9))
    status, _, err = wm("show", "--to", tmp_path / "p")
    assert status == 2
    assert "00000001.mcap: expected sha256" in err
    assert not (tmp_path / "p").exists()


def test_an_empty_store_has_no_episode_to_show(root, wm):
    from wm_core.store.ledger import LEDGER_NAME, Ledger

    Ledger(root / LEDGER_NAME).close()
    for name in ("last", "best", "0.1"):
        status, _, err = wm("show", name)
        assert status == 2
        assert "holds no episode yet" in err


@pytest.mark.parametrize(
    "words", [("show", "--to"), ("info", "--write"), ("split", "--write"), ("split", "--to")]
)
def test_a_place_that_cannot_be_written_to_is_said_in_one_line(record, wm, tmp_path, words):
    record(play(3, 20))
    file = tmp_path / "file"
    file.write_text("no folder")
    status, _, err = wm(*words, file / "deeper" / "x.json")
    assert status == 2
    assert "file" in err
    assert err.count("\n") == 1

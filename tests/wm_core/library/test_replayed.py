"""Episodes of a store, step by step, with the dream of a checkpoint beside them."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.wm_core.stored import LEARNABLE, SIDE, learnable
from wm_core.contract.errors import StoreError
from wm_core.contract.files import write_atomically
from wm_core.library import replayed
from wm_core.library.dreamer import AHEAD, SEEN, stretch
from wm_core.library.episode_book import store_of
from wm_core.library.replayed import Replays
from wm_core.training import checkpoint

SESSION = f"{0:032x}"


def fill(tagged, chunks, episode):
    return tagged.fill(chunks, episode=episode, spec=LEARNABLE, edit=learnable)


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)))


@pytest.fixture
def replays(tagged):
    found = Replays(tagged.root.parent)
    yield found
    found.close()


@pytest.fixture
def with_checkpoint(tagged, leave_checkpoint):
    """Leave the checkpoint of a small agent, of a preset and with changes, in the run folder."""

    def leave(updates, preset="dreamer_v3", **changes):
        leave_checkpoint(tagged.root.parent, updates, preset, **changes)

    return leave


def test_pictures_actions_and_rewards_are_those_that_were_stored(tagged, replays):
    tagged.fill(4, episode=25)
    replay = replays.episode("robot", SESSION, 1)
    episode = replay.episode
    assert (episode.first_step, episode.steps, episode.end) == (25, 25, "last")
    assert replay.reward.tolist() == [float(n) for n in range(25, 50)]
    assert (replay.step(3)["version"], replay.step(3)["reward"]) == (28, 28.0)
    physical = tagged.spec.action.to_physical(replay.action[3])
    np.testing.assert_allclose(replay.step(3)["action"], physical, atol=1e-6)
    for step in (0, 14, 15, 24):  # before and behind the border of two chunks
        number = 25 + step
        picture = pixels(replays.frame(replay, step))
        assert picture.shape == (4, 6, 3)
        assert (picture == (number % 256, number // 256, 7)).all()
        assert (pixels(replays.frame(replay, step, "wrist")) == number % 251).all()


def test_chunks_in_memory_are_bounded_and_give_the_same_pictures(tagged, replays, monkeypatch):
    monkeypatch.setattr(replayed, "KEPT_BYTES", 1)
    tagged.fill(4, episode=80)
    replay = replays.episode("robot", SESSION, 0)
    for step in (0, 79, 20, 41):
        assert (pixels(replays.frame(replay, step))[..., 0] == step).all()
        assert len(replays._chunks._kept) == 1


@pytest.mark.parametrize(
    ("ask", "said"),
    [
        (lambda r, e: r.frame(e, 25), "step from 0 to 24, got 25"),
        (lambda r, e: r.frame(e, -1), "step from 0 to 24, got -1"),
        (lambda r, e: r.frame(e, 0, "front"), r"cameras of this episode \(image, wrist\)"),
        (lambda r, e: r.dream_frame(e, 99), "step from 0 to 24, got 99"),
        (lambda r, e: r.dream_frame(e, 0), "no checkpoint yet"),
        (lambda r, e: r.dream_numbers(e, 0), "no checkpoint yet"),
        (lambda r, e: r.episode("robot", SESSION, 4), "from 0 to 3, got 4"),
        (lambda r, e: r.episode("robot", "a" * 32, 0), "no session"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(tagged, replays, ask, said):
    tagged.fill(4, episode=25)
    replay = replays.episode("robot", SESSION, 0)
    with pytest.raises(StoreError, match=said) as refused:
        ask(replays, replay)
    assert "\n" not in str(refused.value)


def test_a_file_that_has_gone_costs_its_pictures_alone(tagged, replays):
    paths = tagged.fill(2, episode=40)
    replay = replays.episode("robot", SESSION, 0)
    paths[1].unlink()
    assert pixels(replays.frame(replay, 19)).shape == (4, 6, 3)
    with pytest.raises(StoreError, match="step 20 cannot be read"):
        replays.frame(replay, 20)


def test_an_episode_that_goes_on_is_opened_anew_with_its_new_steps(tagged, replays):
    tagged.write(0, 0)
    assert len(replays.episode("robot", SESSION, 0).reward) == 20
    tagged.write(1, 20)
    assert len(replays.episode("robot", SESSION, 0).reward) == 40


def test_the_dream_goes_beside_every_step_and_begins_anew(tagged, replays, with_checkpoint):
    fill(tagged, 5, 100)
    with_checkpoint(3)
    replay = replays.episode("robot", SESSION, 0)
    assert replays.why_no_dream(replay) == ""
    told = {step: replays.dream_numbers(replay, step) for step in (0, SEEN, 65, 66, 99)}
    assert [told[s]["first_step"] for s in told] == [0, 0, 0, 50, 50]
    assert {t["observed"] for t in told.values()} == {SEEN}
    assert [len(t["reward"]) for t in told.values()] == [66, 66, 66, 50, 50]
    assert told[66]["reward"] == [float(n) for n in range(50, 100)]
    assert told[0]["surprise"][0] is None
    assert len(told[0]["error"]) == 66
    truth = pixels(replays.frame(replay, 70)).astype(int)
    imagined = pixels(replays.dream_frame(replay, 70))
    assert imagined.shape == truth.shape
    assert np.abs(truth - imagined).mean() == pytest.approx(told[66]["error"][20])
    assert pixels(replays.dream_frame(replay, 70, "wrist")).shape == (SIDE, SIDE, 3)
    chosen = replays.dream_numbers(replay, 40, start=30)
    assert chosen["first_step"] + chosen["observed"] - 1 == 30


def test_a_newer_checkpoint_dreams_the_next_time(tagged, replays, with_checkpoint):
    fill(tagged, 2, 40)
    with_checkpoint(3)
    replay = replays.episode("robot", SESSION, 0)
    before = replays.dream_numbers(replay, 20)
    assert replays.dream_numbers(replay, 20) == before
    with_checkpoint(4)
    assert replays.dream_numbers(replay, 20)["surprise"] != before["surprise"]


def test_a_model_without_decoder_has_numbers_and_no_pictures(tagged, replays, with_checkpoint):
    fill(tagged, 2, 40)
    with_checkpoint(3, "r2dreamer")
    replay = replays.episode("robot", SESSION, 0)
    assert replays.dream_frame(replay, 20) is None
    assert replays.dream_numbers(replay, 20)["error"] is None


def test_other_recordings_and_a_damaged_checkpoint_say_why_there_is_no_dream(
    tagged, replays, with_checkpoint, spec
):
    fill(tagged, 2, 40)
    replay = replays.episode("robot", SESSION, 0)
    write_atomically(checkpoint.path_of(replays.run, 1), b"no checkpoint")
    assert "not a readable checkpoint" in replays.why_no_dream(replay)
    with_checkpoint(2)
    replay.spec = spec  # of another robot
    assert "recorded otherwise" in replays.why_no_dream(replay)


@pytest.mark.parametrize("reach", [None, 2, 3, 20, 32, 64, 90])
@pytest.mark.parametrize("steps", [2, 3, 15, 16, 31, 32, 66, 67, 500])
def test_every_step_is_in_a_stretch_that_sees_and_imagines(steps, reach):
    most = min(SEEN + AHEAD, reach or SEEN + AHEAD)
    for step in range(steps):
        first, observed, end = stretch(steps, step, None, reach)
        assert first <= step < end <= steps
        assert 0 < observed < end - first <= most
        for start in (step, None):
            first, observed, end = stretch(steps, step, start, reach)
            assert 0 < observed < end - first <= most


def test_recorded_pictures_need_no_torch(tagged):
    tagged.fill(2, episode=40)
    code = (
        "import sys; from pathlib import Path; from wm_core.library.replayed import Replays;"
        "r = Replays(Path(sys.argv[1])); e = r.episode('robot', '0' * 32, 0); r.frame(e, 3);"
        "from wm_core.library import live_folder, returns_so_far, step_account;"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tagged.root.parent)], check=True)


def test_the_store_is_that_of_the_settings(tmp_path, tagged):
    tagged.fill(1)
    replays = Replays(tmp_path / "run")
    assert replays.newest(9).episodes == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(f'{{"store": "{tagged.root}"}}')
    assert store_of(tmp_path / "run") == tagged.root
    assert len(replays.newest(9).episodes) == 1  # a run that learns from it by now
    replays.close()

"""A camera is recorded as JPEG pictures where that is asked for, or where noise calls for it."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from tests.wm_core.noisy import JPEG, SPEC, noisy_step
from wm_core.contract.errors import SpecMismatch
from wm_core.format.chunk import ChunkMeta, decode_chunk, encode_step, join_steps
from wm_core.format.codec_choice import RUNS, CodecChoice
from wm_core.format.pictures import encode_picture
from wm_core.link.robot.journal import SpoolSession
from wm_core.link.robot.open_log import LOG_NAME, OpenLog
from wm_core.link.robot.spool import Spool, SpoolSettings

DECIDED = RUNS[-1][1]  #: step from which a choice holds


@pytest.fixture
def recorded(tmp_path, closing):
    """Records steps and gives the chunks that were sealed: [(meta, steps)]."""

    def record(steps, codecs=None, **settings):
        settings = SpoolSettings(**{"seal_steps": 40, "seal_s": 600.0} | settings)
        spool = Spool(
            tmp_path, robot="rover", task="", spec=SPEC, settings=settings, codecs=codecs
        )
        for step in steps:
            assert spool.put(step)
        spool.close(60.0)
        assert spool.counters().get("dropped_not_recordable", 0) == 0
        waiting = SpoolSession(tmp_path / "rover" / spool.session).waiting()
        return [decode_chunk(w.path.read_bytes()) for w in waiting]

    return record


def test_images_are_recorded_without_loss_unless_it_is_asked_for(recorded):
    [(meta, steps)] = recorded(noisy_step(i) for i in range(5))
    assert (meta.version, meta.codecs) == (1, {})
    np.testing.assert_array_equal(steps[2].obs["image"], noisy_step(2).obs["image"])


def test_jpeg_makes_a_picture_of_each_colour_and_grey_image(recorded):
    [(meta, steps)] = recorded((noisy_step(i) for i in range(5)), codec="jpeg")
    assert meta.codecs == JPEG
    for i, step in enumerate(steps):
        original = noisy_step(i)
        assert step.jpegs["image"] == encode_picture(original.obs["image"], SPEC.images["image"])
        np.testing.assert_array_equal(step.obs["range"], original.obs["range"])


def test_each_camera_may_have_a_codec_of_its_own(recorded):
    wanted = {"image": "zstd"}
    [(meta, _)] = recorded((noisy_step(i) for i in range(3)), wanted, codec="jpeg")
    assert meta.codecs == {"wrist": "jpeg"}


def test_auto_takes_pictures_of_a_noisy_camera_once_it_has_seen_enough(recorded):
    count = DECIDED + 10
    chunks = recorded((noisy_step(i) for i in range(count)), codec="auto")
    assert [meta.steps for meta, _ in chunks] == [40, DECIDED - 40, 10]
    assert [meta.codecs for meta, _ in chunks] == [{}, {}, JPEG]
    assert [meta.first_step for meta, _ in chunks] == [0, 40, DECIDED]  # nothing is lost between
    steps = [step for _, found in chunks for step in found]
    assert [step.reward for step in steps] == [float(i) for i in range(count)]


def test_auto_keeps_what_compresses_without_loss(recorded, caplog):
    caplog.set_level(logging.INFO, "wm_core.format.codec_choice")
    still = noisy_step(0, noise=0.0).obs
    chunks = recorded((noisy_step(i, obs=still) for i in range(DECIDED + 3)), codec="auto")
    assert [meta.codecs for meta, _ in chunks] == [{}, {}]
    assert not caplog.messages


def test_who_records_a_noisy_camera_without_loss_is_told_what_it_costs(caplog):
    caplog.set_level(logging.INFO, "wm_core.format.codec_choice")
    choice = CodecChoice(SPEC)
    assert not any(choice.look(noisy_step(i)) for i in range(DECIDED + 3))
    assert choice.codecs == {}
    assert len(caplog.messages) == 2  # once for each camera
    assert "codec auto would record JPEG pictures" in caplog.text


def test_a_depth_camera_is_never_a_picture():
    with pytest.raises(SpecMismatch, match="codec of 'range': expected zstd"):
        CodecChoice(SPEC, {"range": "jpeg"})
    assert CodecChoice(SPEC, {"range": "auto"}, default="jpeg").codecs == JPEG


def test_a_kill_leaves_pictures_that_become_the_same_chunk(tmp_path, closing):
    """They were encoded before they were written ahead, so nothing is encoded again."""
    meta = _meta(1)
    steps = [encode_step(noisy_step(i), SPEC, JPEG) for i in range(3)]
    folder = tmp_path / "rover" / meta.session
    log = OpenLog(folder / LOG_NAME, sync_s=0.5)
    log.begin(meta)
    log.append(steps)
    spool = closing(Spool(tmp_path, robot="rover", task="", spec=SPEC))
    assert spool.flush(60.0)
    [found] = SpoolSession(folder).waiting()
    assert found.path.read_bytes() == join_steps(steps, _meta(3))


def _meta(steps):
    known = {"robot": "rover", "session": "b" * 32, "seq": 0, "first_step": 0}
    return ChunkMeta(**known, spec=SPEC, steps=steps).with_codecs(JPEG)

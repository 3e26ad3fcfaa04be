"""Reports of robots, and the size that a picture's header states."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wm_core.contract.jpeg import jpeg_size
from wm_core.contract.live import LiveReport


def picture(width, height, mode="RGB", **more):
    target = io.BytesIO()
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).convert(mode).save(
        target, "JPEG", **more
    )
    return target.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize(("mode", "channels"), [("RGB", 3), ("L", 1)])
def test_the_size_is_what_a_decoder_finds(mode, channels, progressive):
    data = picture(37, 21, mode, progressive=progressive, comment=b"\xff\xc0" * 50)
    assert jpeg_size(data) == (21, 37, channels)


def test_a_picture_of_four_channels_or_a_cut_header_is_refused():
    with pytest.raises(ValueError, match="4 channels"):
        jpeg_size(picture(8, 8, "CMYK"))
    whole = picture(8, 8)
    end = whole.index(b"\xff\xc0")
    for length in range(end + 19):
        with pytest.raises(ValueError, match="JPEG"):
            jpeg_size(whole[:length])


@given(st.binary(max_size=200))
def test_any_bytes_have_a_size_or_are_refused(data):
    for text in (data, b"\xff\xd8" + data):
        try:
            assert all(jpeg_size(text))
        except ValueError:
            continue


def test_a_report_of_a_newer_robot_is_read_without_what_is_not_known():
    said = LiveReport.model_validate_json(b'{"t_ns": 1, "of_a_newer_robot": [1, 2]}')
    assert said == LiveReport(t_ns=1)
    assert "newer" not in said.model_dump_json()


def test_numbers_that_are_not_known_are_null():
    said = LiveReport(t_ns=1, action=(None, 0.5), action_low=(None, -1.0))
    assert LiveReport.model_validate_json(said.model_dump_json()) == said
    with pytest.raises(ValueError, match="finite"):
        LiveReport(t_ns=1, action=(float("nan"),))

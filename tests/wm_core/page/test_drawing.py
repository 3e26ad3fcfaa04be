"""Charts and bars: where things are drawn, and what cannot break them."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from wm_core.page.drawing import Chart, action_bars, in_short, nice_ticks


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 1000, [0, 200, 400, 600, 800, 1000]),
        (3, 3, [3]),
        (math.nan, 1, [math.nan]),
    ],
)
def test_ticks_are_round_numbers(low, high, ticks):
    found = nice_ticks(low, high)
    assert found == pytest.approx(ticks, nan_ok=True)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "–"), (math.nan, "–"), (0, "0"), (1e-12, "0"), (0.0512, "0.0512"), (999, "999"),
        (-2450, "-2450"), (12_345, "12.3k"), (4.2e6, "4.2M"), (7e12, "7e+03G"),
    ],
)  # fmt: skip
def test_numbers_in_short(value, words):
    assert in_short(value) == words


def test_the_highest_point_is_the_uppermost():
    chart = Chart("x", "y")
    chart.dots([0, 1, 2], [5.0, 7.0, 6.0])
    ys = [float(y) for y in re.findall(r'cy="([\d.]+)"', chart.svg())]
    assert ys[1] < ys[2] < ys[0]


@pytest.mark.parametrize("value", [0.0, 3.0, -1e300, 1e-300])
def test_every_chart_is_whole_xml(value):
    chart = Chart("a < b", '"y"')
    assert chart.is_empty
    ElementTree.fromstring(chart.svg())
    chart.line([1], [value], "</svg><script>")
    chart.dots([1, 2], [math.nan, math.inf])
    chart.band([1, 2], [value, math.nan], [value, 1.0])
    chart.level(math.nan, "none")
    chart.level(value, "<level>")
    chart.mark(1, "<mark>")
    root = ElementTree.fromstring(chart.svg())
    text = chart.svg()
    assert not any("script" in element.tag for element in root.iter())
    assert "nan" not in text.lower()
    assert "inf" not in text


def test_rare_bars_show_beside_frequent_ones_where_counts_are_logarithmic():
    chart = Chart("ms", "ticks", log_counts=True)
    chart.bars([0, 1, 2, 3], [100_000, 0, 3])
    heights = [float(h) for h in re.findall(r'class="bar"[^>]*height="([\d.]+)"', chart.svg())]
    assert len(heights) == 2
    assert heights[1] > 0.1 * heights[0] > 0


def test_a_bar_begins_at_zero_and_says_when_it_is_at_its_limit():
    text = action_bars([0.5, -1.0, None], [-1, -1], [1, 1], ["go", "turn"])
    ElementTree.fromstring(text)
    bars = re.findall(r'class="bar( limit)?" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', text)
    (limit, x, width), (limit_of_second, x_of_second, _) = bars
    middle = (110 + 330) / 2
    assert (limit, limit_of_second) == ("", " limit")
    assert float(x) == middle
    assert float(width) == (330 - 110) / 4
    assert float(x_of_second) == 110
    assert "–" in text

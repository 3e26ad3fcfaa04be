"""Formulas of a robot file: what they compute, and that nothing else can be said in them."""

import ast
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wm_core.robot.expression import Expression, Names

NAMES = Names(
    scalars=("progress", "bumped"),
    vectors={"proprio": ("left", "left.velocity", "arm"), "imu": ("yaw", "arm")},
)
KNOWN = {"progress": 2.0, "bumped": 0.0, "proprio": (1.0, -3.0, 5.0), "imu": (0.5, 7.0)}


def value(text, **changed):
    """The number that ``text`` gives."""
    return Expression(text, NAMES)(KNOWN | changed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("progress - 0.1 * abs(left_velocity)", 2.0 - 0.3),
        ("proprio[2] + imu['arm'] + proprio[-1]", 17.0),
        ("-progress ** 2", -4.0),
        ("2 ** -1", 0.5),
        ("1 < progress <= 2", 1.0),
        ("progress > 3 or bumped", 0.0),
        ("not bumped and yaw == 0.5", 1.0),
        ("clip(10, -1, 1) + min(3, 2, progress)", 3.0),
        ("where(bumped, -1, 4)", 4.0),
        ("4 if not bumped else 1 / 0", 4.0),
        ("hypot(3, 4) + sqrt(16)", 9.0),
        ("min(proprio) + max(proprio[0:2]) + sum(imu) + mean(proprio)", -3 + 1 + 7.5 + 1),
        ("cos(pi)", -1.0),
        ("True + 1", 2.0),
    ],
)
def test_a_formula_gives_the_number_that_it_says(text, expected):
    assert value(text) == pytest.approx(expected)


@pytest.mark.parametrize(
    "text",
    [
        "progress + 1",
        "progress > 1",
        "not progress",
        "progress > 1 and True",
        "where(progress, 1, 2)",
        "min(progress, 0)",
        "0 * progress",
        "1 / bumped",
        "sqrt(-1)",
        "(-8) ** 0.5",
        "log(bumped)",
    ],
)
def test_what_is_not_a_number_stays_so(text):
    assert math.isnan(value(text, progress=math.nan))


def test_a_condition_is_decided_where_the_unknown_does_not_matter():
    assert value("progress > 1 or True", progress=math.nan) == 1.0
    assert value("progress > 1 and False", progress=math.nan) == 0.0


def test_a_number_that_is_too_large_is_infinite_and_never_an_error():
    assert value("exp(1000)") == math.inf
    assert value("9.0 ** 9 ** 9") == math.inf


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("progres", "unknown name 'progres'; did you mean 'progress'?"),
        ("arm", "write proprio[2] or imu[1]"),
        ("proprio", "has 3 numbers; write proprio[0]"),
        ("proprio[3]", "'proprio' has 3 numbers, got the index 3"),
        ("proprio['lef']", "unknown number of proprio 'lef'; did you mean 'left'?"),
        ("prprio[0]", "unknown vector 'prprio'; did you mean 'proprio'?"),
        ("progress.real", "expected a number, a name, an operator or a function"),
        ("().__class__", "expected a number"),
        ("__import__('os')", "unknown function '__import__'"),
        ("open('x')", "unknown function"),
        ("abs(1, 2)", "expected 1 arguments of abs"),
        ("min(1)", "at least 2 numbers, or a vector"),
        ("max(*proprio)", "expected plain arguments"),
        ("lambda: 1", "expected a number"),
        ("[1, 2]", "expected a number"),
        ("'a'", "expected a number, got"),
        ("1 // 2", "one of + - * / **"),
        ("~1", "one of + - not"),
        ("1 in 2", "one of < <="),
        ("1 +", "expected a formula"),
        ("a = 1", "expected a formula"),
        ("", "expected a formula"),
        ("(progress := 3)", "expected a number"),
        ("1 + " * 300 + "1", "expected at most 400 pieces"),
        ("-" * 100 + "1", "at most 60 deep"),
        ("(" * 500 + "1" + ")" * 500, "expected a formula"),
        ("1" * 2001, "expected at most 2000 characters"),
        ("1" * 400, "expected a smaller number"),
        ("proprio[0:0]", "expected"),
        ("1j", "expected a number"),
    ],
)
def test_anything_else_is_refused_and_said(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Expression(text, NAMES)


_NUMBERS = st.sampled_from(["progress", "left", "imu[0]", "bumped", "1.5", "-2", "0"])
_FORMULAS = st.recursive(
    _NUMBERS,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "**", "<", ">=", "=="]), inner).map(
            lambda t: f"({t[0]} {t[1]} {t[2]})"
        ),
        inner.map("abs({})".format),
        st.tuples(inner, inner).map("max({0[0]}, {0[1]})".format),
    ),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(_FORMULAS)
def test_numbers_agree_with_python_where_python_has_one(text):
    got = value(text)
    names = {"progress": 2.0, "left": 1.0, "imu": (0.5,), "bumped": 0.0}
    try:
        expected = eval(  # the very language that formulas are a part of
            compile(ast.parse(text, mode="eval"), "formula", "eval"),
            {"__builtins__": {}, "abs": abs, "max": max},
            {k: v for k, v in names.items()},
        )
    except ZeroDivisionError:
        assert math.isnan(got) or got == got  # a part of it may not matter
        return
    except OverflowError:
        return
    if isinstance(expected, complex):
        return
    assert got == pytest.approx(float(expected), nan_ok=True) or math.isnan(got)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60))
def test_no_text_does_anything_but_compute_or_be_refused(text):
    try:
        expression = Expression(text, NAMES)
    except ValueError:
        return
    assert isinstance(expression(KNOWN), float)

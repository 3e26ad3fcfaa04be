"""Whole numbers as people write them."""

import pytest

from wm_core.contract.whole import whole


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("7", 7),
        ("-3", -3),
        ("500_000", 500_000),
        ("1e6", 1_000_000),
        ("2E4", 20_000),
        ("+2e+4", 20_000),
        ("1.5e3", 1500),
        ("20.0", 20),
        ("1000e-1", 100),
        (" 12 ", 12),
        ("9007199254740993", 9007199254740993),  # which no float holds
        ("9007199254740993.0", 9007199254740993),
        ("123456789012345678901234567890", 123456789012345678901234567890),
    ],
)
def test_a_whole_number_is_read_exactly(text, number):
    assert whole(text) == number


@pytest.mark.parametrize(
    "text", ["1.5", "1e-1", "nan", "inf", "1e400", "1e999999999", "", "ten", "1e", "0x10", "1,000"]
)
def test_anything_else_is_refused_and_quoted(text):
    with pytest.raises(ValueError, match="expected a whole number such as 20000 or 2e4") as error:
        whole(text)
    assert repr(text) in str(error.value)

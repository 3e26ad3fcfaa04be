"""Whole numbers as people write them: ``20000``, ``20_000``, ``2e4``."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation

MAX_DIGITS = 18  #: of a whole number that is written with an exponent or a point


def whole(text: str) -> int:
    """The whole number that ``text`` states, such as 20000, 20_000, 2e4 or 1.5e6.

    Raises:
        ValueError: for any other text, and for a number with a fraction.
    """
    words = text.strip()
    try:
        return int(words)
    except ValueError:
        pass
    try:
        number = Decimal(words)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or number.adjusted() >= MAX_DIGITS or number % 1:
        raise ValueError(f"expected a whole number such as 20000 or 2e4, got {text!r}")
    return int(number)

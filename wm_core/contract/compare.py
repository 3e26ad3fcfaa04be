"""Says in words how one ``Spec`` differs from another that was expected.

Equal shapes are not enough: a policy that was trained for other bounds, another order of actions
or another rate runs without an error and does something else.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from wm_core.contract.inputs import ImageSpec, Input
from wm_core.contract.spec import ActionSpec, Spec

TOLERANCE = 1e-5  #: relative, of bounds and periods: they pass through float32
#: fields of an input that say how an image is resized, which whoever makes the image can change
_SIZES = frozenset({"height", "width"})


def differences(wanted: Spec, given: Spec, *, resized: bool = False) -> list[str]:
    """List what of ``wanted`` the ``given`` spec lacks or has otherwise; empty where it fits.

    Further inputs of ``given`` are no difference.  Names are compared only where both state them.

    Args:
        wanted: of a policy, a run or a store.
        given: of what it is to be used with, such as a task.
        resized: images are resized to what is wanted, so that their heights and widths may differ.

    Returns:
        One entry for each difference, such as ``period: expected 0.05 s, got 0.04 s``.
    """
    return [
        *_inputs(wanted, given, resized),
        *_actions(wanted.action, given.action),
        *_period(wanted.period_s, given.period_s),
    ]


def _inputs(wanted: Spec, given: Spec, resized: bool) -> Iterator[str]:
    for key, sensor in wanted.inputs.items():
        other = given.inputs.get(key)
        if other is None:
            yield f"input {key!r}: expected {_described(sensor)}, got only {[*given.inputs]}"
        elif type(other) is not type(sensor):
            yield f"input {key!r}: expected {_described(sensor)}, got {_described(other)}"
        else:
            yield from _fields(key, sensor, other, _SIZES if resized else frozenset())


def _fields(key: str, wanted: Input, given: Input, without: frozenset[str]) -> Iterator[str]:
    for name in type(wanted).model_fields:
        mine, other = getattr(wanted, name), getattr(given, name)
        if name == "names":
            yield from _names(f"input {key!r}", mine, other)
        elif name not in without and mine != other:
            yield f"{name} of input {key!r}: expected {mine}, got {other}"


def _described(sensor: Input) -> str:
    shape = "x".join(map(str, sensor.shape))
    return f"{sensor.kind} {shape}" if isinstance(sensor, ImageSpec) else f"{sensor.kind}({shape})"


def _actions(wanted: ActionSpec, given: ActionSpec) -> Iterator[str]:
    if wanted.kind != given.kind:
        yield f"actions: expected {wanted.kind}, got {given.kind}"
        return
    yield from _names("the actions", wanted.names, given.names)
    yield from _names("the actions", wanted.units, given.units, what="units")
    if wanted.discrete and wanted.noop != given.noop:
        yield f"choice that does nothing: expected {wanted.noop}, got {given.noop}"
    bounds = zip(wanted.low, wanted.high, given.low, given.high, strict=True)
    off = [
        f"bounds of action {i}: expected {low:g} .. {high:g}, got {low2:g} .. {high2:g}"
        for i, (low, high, low2, high2) in enumerate(bounds)
        if not _close(low, low2, high - low) or not _close(high, high2, high - low)
    ]
    more = f" (and {len(off) - 1} more)" if len(off) > 1 else ""
    yield from (f"{first}{more}" for first in off[:1])


def _names(
    owner: str, wanted: Sequence[str], given: Sequence[str], what: str = "names"
) -> Iterator[str]:
    if wanted and given and tuple(wanted) != tuple(given):
        pairs = zip(wanted, given, strict=False)
        i, mine, other = next(
            ((i, m, o) for i, (m, o) in enumerate(pairs) if m != o),
            (min(len(wanted), len(given)), f"{len(wanted)} {what}", f"{len(given)} {what}"),
        )
        yield f"{what} of {owner}, place {i}: expected {mine!r}, got {other!r}"


def _period(wanted_s: float, given_s: float) -> Iterator[str]:
    if not math.isclose(wanted_s, given_s, rel_tol=TOLERANCE):
        yield f"period: expected {wanted_s:.4g} s, got {given_s:.4g} s"


def _close(one: float, other: float, scale: float) -> bool:
    return abs(one - other) <= TOLERANCE * max(scale, abs(one))

"""Defines what a robot says of itself several times a second, for people who watch it.

Only the newest report counts, and nothing is learnt from it: experience goes its own way.  All
times are by the robot's clock, so that they can be compared with each other and with no other's.
"""

from __future__ import annotations

import base64
import binascii
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from wm_core.contract.jpeg import jpeg_size

MAX_REPORT_BYTES = 256 << 10  #: of one report as JSON, with its pictures
_MAX_FAULTS = 3  # that are told
MAX_SIDE = 512  #: pixels; robots send 128
MAX_CAMERAS, MAX_ACTIONS, MAX_COUNTERS = 16, 128, 128
ACTS = "acts"  #: the mode in which the policy acts

_Word = Annotated[str, Field(max_length=64)]
_Text = Annotated[str, Field(max_length=500)]
_Ns = Annotated[int, Field(ge=0, lt=2**63)]
_Ms = Annotated[float, Field(ge=0)]
_Count = Annotated[int, Field(ge=-(2**63), lt=2**63)] | float
#: NaN has no place in JSON: what is not known is null
_Numbers = Annotated[tuple[float | None, ...], Field(max_length=MAX_ACTIONS)]


def _is_picture(text: str) -> str:
    try:
        height, width, _ = jpeg_size(base64.b64decode(text, validate=True))
    except binascii.Error as error:
        raise ValueError(f"expected base64: {error}") from error
    if max(height, width) > MAX_SIDE:
        raise ValueError(f"expected at most {MAX_SIDE} pixels a side, got {width} x {height}")
    return text


class _Said(BaseModel):
    """Takes no NaN and no infinity, and passes over fields that a newer robot adds."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        allow_inf_nan=False,
        defer_build=True,
        hide_input_in_errors=True,
    )


class LiveCamera(_Said):
    """Holds the newest picture of a camera."""

    t_ns: _Ns  #: when the policy saw it, since 1970
    jpeg: Annotated[str, AfterValidator(_is_picture)]  #: base64 of a JPEG picture


class LiveSafeAction(_Said):
    """Says when the policy last did not act, and why."""

    why: _Word  #: a reason of the robot, in one word
    t_ns: _Ns  #: since 1970
    text: _Text = ""  #: the reason in a sentence, where it still holds


class LiveReport(_Said):
    """Says how a robot is doing at one moment."""

    t_ns: _Ns  #: when this was said, since 1970
    mode: _Word = ""  #: ``acts``, or the reason in one word why the policy does not
    mode_text: _Text = ""  #: the reason in a sentence
    observation_age_ms: _Ms | None = None  #: of what the newest command answers
    tick_age_ms: _Ms | None = None  #: since the newest command
    tick_p99_ms: _Ms | None = None  #: work of a tick of late
    period_ms: _Ms | None = None  #: between two ticks
    policy: Annotated[int, Field(ge=-1)] = -1  #: version that acts; -1: none
    policy_sha256: _Word = ""  #: of its file
    task: _Text = ""
    action: _Numbers = ()  #: (A,) newest command in physical units; one-hot for choices
    action_low: _Numbers = ()  #: (A,) least that is sent
    action_high: _Numbers = ()  #: (A,) most that is sent
    action_names: Annotated[tuple[_Word, ...], Field(max_length=MAX_ACTIONS)] = ()
    safe_action: LiveSafeAction | None = None
    counters: Annotated[dict[_Word, _Count], Field(max_length=MAX_COUNTERS)] = {}
    cameras: Annotated[dict[_Word, LiveCamera], Field(max_length=MAX_CAMERAS)] = {}

    @classmethod
    def parse(cls, text: bytes) -> LiveReport:
        """Read a report as it came over the wire.

        Raises:
            ValueError: for anything else, with the first faults in a few words of ours.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise ValueError(_faults(error)) from None

    @model_validator(mode="after")
    def _of_one_size(self) -> LiveReport:
        sizes = [len(v) for v in (self.action, self.action_low, self.action_high) if v]
        sizes += [len(self.action_names)] if self.action_names else []
        if len(set(sizes)) > 1:
            raise ValueError(f"expected action, limits and names of one length, got {sizes}")
        return self


def _faults(error: ValidationError) -> str:
    """Say what is wrong with a report, without repeating what it said."""
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{_place(f['loc'])}: {f['msg']}"[:200] for f in faults[:_MAX_FAULTS]]
    more = f"; {len(faults) - _MAX_FAULTS} more" if len(faults) > _MAX_FAULTS else ""
    return "; ".join(told) + more


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:64] for part in loc[:4]) or "the report"

"""Says how the columns of a table become steps; what is left out is found from the data."""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, field_validator

from wm_core.contract.inputs import FIT_TEXT, MAX_PIXELS, Fit
from wm_core.contract.spec import Frozen

SIZE = 64  #: rows and columns of the image that the network sees, where nothing else is said
OWN = "own"
_SIZE = re.compile(r"(\d+)(?:x(\d+))?")


class TableOptions(Frozen):
    """Holds what whoever imports a table may say about its columns."""

    features: tuple[str, ...] = Field(
        (), description="Columns that become observations; none: all that look like it"
    )
    without: tuple[str, ...] = Field((), description="Columns that do not become observations")
    rename: tuple[str, ...] = Field(
        (), description="Names of observations, as OLD=NEW; else made of the columns' names"
    )
    action: str = Field("", description="Column of the action; empty: by the format's rule")
    reward: str = Field(
        "", description="Column of the reward; empty: by the format's rule; none: without reward"
    )
    done: str = Field(
        "", description="Column of what ends an episode; empty: by the format's rule; none: no end"
    )
    action_low: tuple[float, ...] = Field(
        (), description="Command at action -1, one or one per number; none: the data's lowest"
    )
    action_high: tuple[float, ...] = Field(
        (), description="Command at action 1, one or one per number; none: the data's highest"
    )
    action_choices: int | None = Field(
        None, ge=2, le=65536, description="Choices that a whole-numbered action has; none: as seen"
    )
    action_timing: Literal["chosen", "led"] = Field(
        "chosen",
        description="Whether the action of a row was chosen at its observation or led to it",
    )
    reward_timing: Literal["format", "earned", "arrived"] = Field(
        "format",
        description="Whether a row's reward was earned by its action or arrived with its "
        "observation; format: as the format has it",
    )
    done_means: Literal["terminal", "truncated"] = Field(
        "terminal",
        description="Whether done says that nothing can follow, or that time was up, where the "
        "data does not tell them apart",
    )
    image_size: str = Field(
        "",
        description=f"Size of the images, as HEIGHTxWIDTH or own; empty: {SIZE}x{SIZE}, or their "
        "own where that is smaller",
    )
    fit: Fit = Field("crop", description=FIT_TEXT)
    fps: float | None = Field(
        None, gt=0, le=1000, description="Steps per second, for data that does not say it"
    )

    @field_validator("image_size")
    @classmethod
    def _is_size(cls, text: str) -> str:
        if text not in ("", OWN) and not (
            (found := _SIZE.fullmatch(text))
            and all(0 < int(n) <= MAX_PIXELS for n in found.groups() if n)
        ):
            raise ValueError(
                f"expected HEIGHTxWIDTH in pixels, such as 64x64, or own, got {text!r}"
            )
        return text

    @field_validator("rename")
    @classmethod
    def _are_pairs(cls, pairs: tuple[str, ...]) -> tuple[str, ...]:
        for pair in pairs:
            if not all(pair.partition("=")):
                raise ValueError(f"expected OLD=NEW, got {pair!r}")
        return pairs

    @property
    def names(self) -> dict[str, str]:
        """Map columns to the names that they get."""
        return {old: new for old, _, new in (pair.rpartition("=") for pair in self.rename)}

    @property
    def size(self) -> tuple[int, int] | None:
        """Give the (height, width) of images; None: nothing was said, or their own."""
        found = _SIZE.fullmatch(self.image_size)
        return (int(found[1]), int(found[2] or found[1])) if found else None

    def said(self) -> dict[str, Any]:
        """List what was said about the recording itself, for its fingerprint."""
        return self.model_dump(mode="json", exclude_defaults=True)

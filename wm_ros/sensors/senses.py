"""What the sensors said until one tick, as the pilot takes it."""

from __future__ import annotations

from dataclasses import dataclass

from wm_core.contract.spec import Obs


@dataclass(frozen=True, slots=True)
class Senses:
    """What the sensors said until this tick; ages in seconds."""

    obs: Obs | None  #: None while no observation fits the policy
    stamp_ns: int = 0  #: of the first sensor's message
    fresh: bool = False  #: that message came since the last tick
    receive_age_s: float = float("inf")
    stamp_age_s: float = 0.0
    refused: str | None = None  #: why there is no observation, in one word

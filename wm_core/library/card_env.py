"""Reads from a policy's card how the environment of its task is made."""

from __future__ import annotations

from pydantic import ValidationError

from wm_core.contract.card import PolicyCard
from wm_core.contract.errors import PolicyRefused, shown
from wm_core.training.settings import EnvConfig


def env_of(card: PolicyCard) -> EnvConfig:
    """Read the settings of the environment that the policy was trained in.

    Cards without them, such as older ones, mean the defaults.

    Raises:
        PolicyRefused: for settings that this version does not know.
    """
    try:
        return EnvConfig.model_validate_json(card.task_settings or "{}")
    except ValidationError as error:
        raise PolicyRefused(
            f"the card's settings of task {card.task!r} are not of this version: {shown(error)}"
        ) from None

"""Describes what a robot file says of rewards and episodes, and the numbers that they read."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from wm_core.robot.entries import EitherSpelling, Entry, Misfit, TopicName

_MESSAGE = re.compile(r"[a-z][a-z0-9_]*/[A-Z][A-Za-z0-9]*")
_FIELD = re.compile(r"[A-Za-z_]\w*(\[[^\]\[]+\])?(\.[A-Za-z_]\w*(\[[^\]\[]+\])?)*")
_FUNCTION = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


def _is_message(value: str) -> str:
    if not _MESSAGE.fullmatch(value):
        raise ValueError(f"expected a message such as std_msgs/Float32, got {value!r}")
    return value


def _is_field(value: str) -> str:
    if not _FIELD.fullmatch(value):
        raise ValueError(f"expected a path such as pose.position.x or data[0], got {value!r}")
    return value


def _is_function(value: str) -> str:
    if not _FUNCTION.fullmatch(value):
        raise ValueError(
            f"expected module:function, such as my_robot.rewards:score, got {value!r}"
        )
    return value


class NamedNumber(Entry):
    """Describes one number in the messages of a topic, which reward and conditions may read."""

    type: Annotated[str, AfterValidator(_is_message)] = Field(
        "std_msgs/Float32", description="Message that holds the number, of any package."
    )
    topic: TopicName = Field(description="Topic on which the number comes.")
    field: Annotated[str, AfterValidator(_is_field)] = Field(
        "data",
        description="Path of the number in the message; [i] picks an element, or a joint by name.",
    )
    latest: bool | None = Field(
        None,
        description="Whether the last message counts however old; left out: if it has no stamp.",
    )
    max_age_s: float | None = Field(
        None, gt=0, description="Oldest message in seconds where the last one counts."
    )


class Reward(Entry):
    """Describes the reward of a step: a message, an expression or a function of the owner's."""

    topic: TopicName | None = Field(
        None, description="Topic of messages that carry reward and flags of one stamp each."
    )
    expression: str | None = Field(
        None, description="Reward as a formula over values and observations, such as -abs(turn)."
    )
    function: Annotated[str, AfterValidator(_is_function)] | None = Field(
        None, description="Python function module:name that gets all names and returns the reward."
    )
    required: bool = Field(
        True, description="Whether a step is stored only if its reward is known."
    )

    @model_validator(mode="after")
    def _one_way(self) -> Reward:
        given = [n for n in ("topic", "expression", "function") if getattr(self, n) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none"
            text = f"expected one of topic, expression and function, got {got}"
            raise Misfit(given[-1] if given else (), text)
        return self


class Reset(Entry):
    """Describes the service that puts the robot back between two episodes."""

    service: TopicName = Field(description="Service that is called after the end of an episode.")
    type: Literal["std_srvs/Trigger", "std_srvs/Empty"] = Field(
        "std_srvs/Trigger", description="Type of that service, which says whether it succeeded."
    )
    quiet: bool = Field(
        False,
        description="Whether nothing is sent while it is at work, so that it may drive the robot.",
    )
    wait_s: float = Field(
        30.0, gt=0, le=3600, description="Seconds after which a missing answer is an error."
    )


class EpisodeRules(Entry):
    """Describes when an episode ends and what happens until the next one."""

    max_s: float = Field(
        0.0, ge=0, le=86_400, description="Seconds after which an episode ends; 0: no such end."
    )
    end_if: str | None = Field(
        None, description="Condition that ends an episode, though the task might go on."
    )
    terminal_if: str | None = Field(
        None, description="Condition after which nothing can follow, such as a fall."
    )
    start_topic: TopicName | None = Field(
        None, description="Topic of std_msgs/Bool; true starts an episode."
    )
    end_topic: TopicName | None = Field(
        None, description="Topic of std_msgs/Bool; true ends the episode."
    )
    fail_topic: TopicName | None = Field(
        None, description="Topic of std_msgs/Bool; true ends it as one that nothing can follow."
    )
    pause_s: float = Field(
        0.0, ge=0, le=3600, description="Seconds of safe action between two episodes, at least."
    )
    autostart: bool = Field(
        True, description="Whether episodes start by themselves; if not, a service or topic does."
    )
    reset: Annotated[Reset, EitherSpelling] | None = Field(
        None, description="Service that puts the robot back between two episodes."
    )

    @property
    def conditions(self) -> dict[str, str]:
        """List the conditions that are given, by the name of their field."""
        return {n: c for n in ("end_if", "terminal_if") if (c := getattr(self, n)) is not None}

"""Defines what has to be known of another trainer's network before a robot may run it.

The file of a network says its tensors and no more.  Which sensor each number is, in which order,
unit and scale, what an action means and within which limits: that is written down here, once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from wm_core.contract.frozen import Frozen
from wm_core.contract.spec import OptionIndex

OWN_ACTION = "own_action"  #: kind of a part that is the network's own last output


def _listed(value: object) -> object:
    return (value,) if isinstance(value, int | float | str) else value


# one number for all elements, or one for each
_Numbers = Annotated[tuple[float, ...], BeforeValidator(_listed)]
_Words = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class ObservedPart(Frozen):
    """Describes some of the numbers of a network's input, next to one another.

    The network is given ``(value - default) * scale``, clipped.
    """

    name: str = Field(description="Name of the policy's input, such as joints; own_action: none.")
    size: int = Field(gt=0, description="Numbers of one observation, at least one.")
    names: _Words = Field((), description="Name of each number, where they have names.")
    default: _Numbers = Field((0.0,), description="Subtracted first, such as a resting posture.")
    scale: _Numbers = Field((1.0,), description="Multiplied then, one for all or one for each.")
    clip: float | None = Field(None, gt=0, description="Largest magnitude after the scale.")
    history: int = Field(1, gt=0, le=1000, description="Observations in a row, the last included.")
    newest_first: bool = Field(False, description="Whether a history begins with the newest one.")
    begins: Literal["repeated", "zeros"] = Field(
        "repeated", description="What stands before the first one of an episode, in a history."
    )

    @model_validator(mode="after")
    def _one_or_each(self) -> ObservedPart:
        for field in ("default", "scale"):
            if len(getattr(self, field)) not in (1, self.size):
                raise ValueError(
                    f"{field}: expected 1 number or {self.size}, got {len(getattr(self, field))}"
                )
        if len(self.names) not in (0, self.size):
            raise ValueError(f"names: expected {self.size} or none, got {len(self.names)}")
        return self

    @property
    def total(self) -> int:
        """Count the numbers that the network reads of it."""
        return self.size * self.history


class ObservedImage(Frozen):
    """Describes a camera picture that is a network's input on its own."""

    name: str = Field(description="Name of the policy's image input, such as image.")
    layout: Literal["NHWC", "NCHW"] = Field(description="Order of the axes that it reads.")
    scale: float = Field(1.0, description="Multiplied to pixels of 0 .. 255, such as 0.00392157.")


class NetworkInput(Frozen):
    """Describes one input of the network: an image, or parts that follow one another.

    With a ``history`` of its own, all parts of one step stand together, step after step.
    """

    parts: tuple[ObservedPart, ...] = Field((), description="What its numbers are, in order.")
    image: ObservedImage | None = Field(None, description="The camera picture that it is.")
    episode_start: bool = Field(False, description="It is 1 where an episode begins, else 0.")
    history: int = Field(1, gt=0, le=1000, description="Steps of all parts, the last included.")
    newest_first: bool = Field(False, description="Whether a history begins with the newest one.")
    begins: Literal["repeated", "zeros"] = Field(
        "repeated", description="What stands before the first step of an episode, in a history."
    )
    normalisation: Literal["inside", "none", "given"] = Field(
        description="inside the file, none at all, or given by mean and std here",
    )
    mean: _Numbers = Field((), description="With given: subtracted from the whole input.")
    std: _Numbers = Field((), description="With given: divides the whole input, each above 0.")
    clip: float | None = Field(None, gt=0, description="Largest magnitude after all of it.")

    @model_validator(mode="after")
    def _whole(self) -> NetworkInput:
        if bool(self.parts) + (self.image is not None) + self.episode_start != 1:
            raise ValueError("expected either parts or an image or episode_start")
        if self.history > 1 and not self.parts:
            raise ValueError("history: expected parts, of which it is")
        if (self.normalisation == "given") != bool(self.mean and self.std):
            raise ValueError("mean and std: expected both with normalisation: given, else none")
        if any(not value > 0 for value in self.std):
            raise ValueError(f"std: expected numbers above 0, got {self.std}")
        return self


class NetworkAction(Frozen):
    """Describes what the network's output does to the robot.

    Continuous: the command is ``default + scale * output``, limited to ``low`` .. ``high``.
    Logits and index: one of several choices.
    """

    output: str = Field(description="Name of the network's output that is the action.")
    kind: Literal["continuous", "logits", "index"] = Field(
        "continuous", description="Numbers, scores of each choice, or the index of a choice."
    )
    names: _Words = Field((), description="Name of each element or choice, such as a joint.")
    units: _Words = Field((), description="Unit of each element's command, such as rad.")
    squash: Literal["none", "tanh"] = Field(
        "none", description="What the trainer applied to the output outside the file."
    )
    clip: float | None = Field(None, gt=0, description="Largest magnitude of the output used.")
    scale: _Numbers = Field((1.0,), description="Command units for each unit of the output.")
    default: _Numbers = Field((0.0,), description="Command where the output is 0.")
    low: _Numbers = Field((), description="Least command that is ever sent, in units.")
    high: _Numbers = Field((), description="Greatest command that is ever sent, in units.")
    max_rate: _Numbers = Field(
        (), description="Greatest change in units per second; the strictest share holds for all."
    )
    groups: tuple[int, ...] = Field(
        (), description="Sizes of several choices at once, whose scores stand in a row."
    )
    noop: OptionIndex | tuple[OptionIndex, ...] = Field(
        0, description="Choice that stops the robot or does nothing; of groups one for each."
    )

    @model_validator(mode="after")
    def _limited(self) -> NetworkAction:
        if self.kind == "continuous" and not (self.low and self.high):
            raise ValueError("low and high: expected the limits of the command, got none")
        if any(value == 0 for value in self.scale):
            raise ValueError("scale: expected numbers other than 0")
        if any(not value > 0 for value in self.max_rate):
            raise ValueError(f"max_rate: expected numbers above 0, got {self.max_rate}")
        return self

    @model_validator(mode="after")
    def _of_groups(self) -> NetworkAction:
        if self.groups and (
            self.kind == "continuous" or len(self.groups) < 2 or min(self.groups) < 2
        ):
            raise ValueError(
                "groups: expected two or more of at least 2 choices each, with kind logits or "
                f"index, got {self.groups} and {self.kind}"
            )
        if self.groups and len(self.names) not in (0, sum(self.groups)):
            raise ValueError(
                f"names: expected {sum(self.groups)}, of all groups in a row, got {self.names}"
            )
        noops = self.noop if isinstance(self.noop, tuple) else (self.noop,) * len(self.groups)
        fits = len(noops) == len(self.groups)
        if not fits or any(i >= n for i, n in zip(noops, self.groups, strict=True)):
            raise ValueError(
                f"noop: expected a choice of each of the groups {self.groups}, got {self.noop}"
            )
        return self


class CarriedState(Frozen):
    """Names an output that the network reads at the next step; zeros begin an episode."""

    input: str = Field(description="Name of the input that takes the state.")
    output: str = Field(description="Name of the output that gives the next one.")
    initial: _Numbers = Field((0.0,), description="What an episode begins with, one or each.")


class Answers(Frozen):
    """Describes a network of another trainer as far as its file does not."""

    trainer: str = Field("other", description="Who trained it, for the card, such as rsl_rl.")
    task: str = Field("", description="Task that it was trained on, for the card.")
    period_s: float = Field(gt=0, description="Seconds from one decision to the next.")
    inputs: dict[str, NetworkInput] = Field(description="Inputs of the network by name.")
    action: NetworkAction = Field(description="What its output means.")
    state: tuple[CarriedState, ...] = Field((), description="What it carries between steps.")
    own_action: Literal["asked", "sent"] = Field(
        "asked",
        description="Own last action as the network asked for it, or as it was really sent",
    )
    frame_id: str = Field("", description="Frame in which the command is meant.")

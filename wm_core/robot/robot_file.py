"""Defines the robot file: what a robot sees, how it is driven, what it is rewarded for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.inputs import CodecRule, ImageSpec, Vector
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.robot.channels import AnyChannel, Channel
from wm_core.robot.entries import (
    EitherSpelling,
    Entry,
    InputName,
    Misfit,
    Misfits,
    OneOrMore,
    RobotName,
)
from wm_core.robot.episode import EpisodeRules, NamedNumber, Reward
from wm_core.robot.expression import CONSTANTS, FUNCTIONS, Expression, Names
from wm_core.robot.parts import AnyPart, ImagePart, PrevActionPart, SensorPart
from wm_core.robot.safety import Safety

#: inputs and outputs that every policy has of its own
RESERVED = (
    *("prev_action", "is_first", "action", "command", "reward"),
    *("noise_latent", "noise_action", "value", "surprise"),
)


class RobotFile(Entry):
    """Describes a robot for everything that meets it: the node, the trainer and the simulator."""

    robot: RobotName = Field(
        "robot", description="Name under which experience is stored: a-z, 0-9, _ and -."
    )
    rate_hz: float | None = Field(
        None,
        gt=0,
        le=1000,
        description="Decisions per second; left out: as the policy's card says.",
    )
    pace: str | None = Field(
        None,
        description="Input whose messages set the pace; timer: none; left out: the first image.",
    )
    tolerance_s: float | None = Field(
        None,
        gt=0,
        le=60,
        description="Farthest that a message may be from the pace's stamp; left out: one period.",
    )
    observations: dict[
        InputName, Annotated[tuple[AnyPart, ...], OneOrMore(dict, SensorPart), Field(min_length=1)]
    ] = Field(min_length=1, description="What the policy sees, by the names of its inputs.")
    actions: Annotated[tuple[AnyChannel, ...], OneOrMore(dict, Channel)] = Field(
        min_length=1, description="Channels that carry the action's elements, in this order."
    )
    values: dict[InputName, Annotated[NamedNumber, EitherSpelling]] = Field(
        {}, description="Numbers of topics, by name, that reward and conditions may read."
    )
    reward: Reward | None = Field(
        None, description="What the robot is rewarded for; left out: messages on reward."
    )
    episode: EpisodeRules = Field(
        default_factory=EpisodeRules, description="When an episode ends and the next one begins."
    )
    safety: Safety = Field(default_factory=Safety, description="When the robot must stop.")

    @classmethod
    def load(cls, path: str | Path) -> RobotFile:
        """Read a robot file.

        Raises:
            SettingsError: for a file that is missing, no YAML, or wrong; it lists every error with
                line, field, what was expected and what came.
        """
        from wm_core.robot.reading import read_file

        return read_file(cls, Path(path))

    @property
    def codecs(self) -> dict[str, CodecRule]:
        """Say how those cameras are recorded of which the file says it."""
        images = self.images.items()
        return {name: part.codec for name, part in images if part.codec is not None}

    @property
    def images(self) -> dict[str, ImagePart]:
        """List the cameras by the names of their inputs."""
        return {
            name: part
            for name, parts in self.observations.items()
            for part in parts
            if isinstance(part, ImagePart)
        }

    @property
    def vectors(self) -> dict[str, tuple[SensorPart, ...]]:
        """List the parts of each vector by the names of the inputs."""
        return {n: parts for n, parts in self.observations.items() if n not in self.images}

    @property
    def paced_by(self) -> str | None:
        """Name the input whose messages set the pace; None where the timer does."""
        if self.pace is None:
            return next(iter(self.images), None)
        return None if self.pace == "timer" else self.pace

    @property
    def choices(self) -> tuple[str, ...]:
        """Name the choices of a discrete action; none for a continuous one."""
        return tuple(next((c.choices for c in self.actions if c.choices), ()))

    def names_of(self, name: str) -> tuple[str, ...]:
        """Name the numbers of the vector input ``name``."""
        return tuple(label for part in self.observations[name] for label in part.names)

    def formula_names(self) -> Names:
        """List what reward and conditions may read: values, vectors, the action sent last.

        ``episode_s`` are the seconds since the episode began.
        """
        vectors = {name: self.names_of(name) for name in self.vectors}
        vectors["prev_action"] = tuple(f"sent.{name}" for name in self.action_names)
        return Names((*self.values, "episode_s"), vectors)

    @property
    def action_names(self) -> tuple[str, ...]:
        """Name the elements of the action: the choices, or the elements of all channels."""
        return self.choices or tuple(name for c in self.actions for name in c.names)

    def spec(self) -> Spec:
        """Describe what a policy for this robot reads and writes.

        Raises:
            SettingsError: where the file states no ``rate_hz``, which a trainer has to know.
        """
        if self.rate_hz is None:
            raise SettingsError(
                f"the file of the robot {self.robot!r} states no rate_hz; a policy is learnt for "
                "one number of decisions per second, so write for example rate_hz: 20"
            )
        images: dict[str, ImageSpec] = {name: part.input() for name, part in self.images.items()}
        vectors = {
            name: Vector(size=len(names), names=names)
            for name in self.vectors
            if (names := self.names_of(name))
        }
        period_s = 1.0 / self.rate_hz
        return Spec(
            images=images, vectors=vectors, action=self.action_spec(period_s), period_s=period_s
        )

    def action_spec(self, period_s: float) -> ActionSpec:
        """Describe the action of a policy that decides every ``period_s`` seconds."""
        if self.choices:
            noop = next(iter(self.stopping_choices), 0)
            return ActionSpec.choices(len(self.choices), self.choices, noop=noop)
        limits: dict[str, list[Any]] = {
            field: [value for channel in self.actions for value in getattr(channel, field)]
            for field in ("low", "high", "names", "units")
        }
        spans = [high - low for low, high in zip(limits["low"], limits["high"], strict=True)]
        rates = [r for c in self.actions for r in c.max_rate or (float("inf"),) * c.size]
        fastest = max(2.0 * r * period_s / span for r, span in zip(rates, spans, strict=True))
        return ActionSpec(
            low=tuple(limits["low"]),
            high=tuple(limits["high"]),
            names=tuple(limits["names"]),
            units=tuple(limits["units"]),
            max_change=min(2.0, fastest),
        )

    @property
    def stopping_choices(self) -> tuple[int, ...]:
        """List the choices that are zero in every channel of velocities and efforts.

        None where all channels take positions, which stop where they are.
        """
        moving = [channel for channel in self.actions if channel.rests_at_zero]
        return tuple(
            i
            for i, name in enumerate(self.choices if moving else ())
            if not any(any(channel.choices[name]) for channel in moving)
        )

    @model_validator(mode="after")
    def _consistent(self) -> RobotFile:
        found = [*self._misfits_of_actions(), *self._misfits_of_observations()]
        if not found:
            found = [*self._misfits_of_names(), *self._misfits_of_formulas()]
        if found:
            raise Misfits(found)
        return self

    def _misfits_of_actions(self) -> list[Misfit]:
        found: list[Misfit] = []
        topics = Counter(channel.topic for channel in self.actions)
        names = Counter(name for channel in self.actions for name in channel.names)
        for i, channel in enumerate(self.actions):
            at = ("actions", i)
            if topics[channel.topic] > 1:
                found.append(
                    Misfit(
                        (*at, "topic"),
                        f"two channels command {channel.topic!r}; expected one each",
                    )
                )
            if channel.takeover in topics:
                found.append(
                    Misfit(
                        (*at, "takeover"),
                        f"expected a topic on which no channel sends, got {channel.takeover!r}: "
                        "the robot would obey itself; name the topic of the person's commands",
                    )
                )
            twice = [name for name in channel.names if names[name] > 1]
            if twice:
                found.append(
                    Misfit(
                        (*at, "names"),
                        f"expected each element in one channel, got twice: {', '.join(twice)}",
                    )
                )
            if self.choices and tuple(channel.choices) != self.choices:
                found.append(
                    Misfit(
                        (*at, "choices"),
                        f"expected the choices {[*self.choices]} in every channel, "
                        f"got {[*channel.choices]}",
                    )
                )
        if not found and self.choices:
            found += self._misfits_of_choices()
        return found

    def _misfits_of_choices(self) -> list[Misfit]:
        if len(self.choices) < 2:
            return [Misfit(("actions", 0, "choices"), "expected at least 2 choices, got 1")]
        moving = [i for i, channel in enumerate(self.actions) if channel.rests_at_zero]
        if moving and not self.stopping_choices:
            of_each = [
                f"{[0.0] * self.actions[i].size} on {self.actions[i].topic}" for i in moving
            ]
            return [
                Misfit(
                    ("actions", moving[0], "choices"),
                    "expected a choice that stops velocities and efforts, such as stop: "
                    f"{' and '.join(of_each)}; got none among {[*self.choices]}",
                )
            ]
        return []

    def _misfits_of_observations(self) -> list[Misfit]:
        found: list[Misfit] = []
        commands = {channel.topic for channel in self.actions}
        kinds: dict[str, str] = {}
        for name, parts in self.observations.items():
            found += self._misfits_of_input(name, parts)
            for i, part in enumerate(parts):
                if isinstance(part, PrevActionPart):
                    found += part.follow(self.action_names, ("observations", name, i))
                for topic in part.topics:
                    at = ("observations", name, i, "topic")
                    if kinds.setdefault(topic, part.type) != part.type:
                        text = f"{topic!r} carries {kinds[topic]} above and {part.type} here"
                        found.append(Misfit(at, text))
                    if topic in commands:
                        text = (
                            f"{topic!r} is what an action commands; what was sent last is a part"
                        )
                        found.append(Misfit(at, f"{text} of type: prev_action"))
            twice = [n for n, count in Counter(self.names_of(name)).items() if count > 1]
            if twice:
                text = f"expected each name once in {name!r}, got twice: {', '.join(twice)}"
                found.append(Misfit(("observations", name), f"{text}; set prefix of a part"))
        if self.pace not in (None, "timer", *self.observations):
            text = nearest(self.pace or "", [*self.observations, "timer"], what="input")
            found.append(Misfit("pace", text))
        elif self.pace in self.observations and not self.observations[self.pace][0].topics:
            found.append(Misfit("pace", f"{self.pace!r} is heard on no topic; write timer"))
        return found

    def _misfits_of_names(self) -> list[Misfit]:
        taken = {*self.observations, *FUNCTIONS, *CONSTANTS, *RESERVED, "episode_s"}
        text = "means something else in formulas: an input, a function or a word of its own"
        return [Misfit(("values", n), f"{n!r} {text}") for n in self.values if n in taken]

    def _misfits_of_formulas(self) -> list[Misfit]:
        found, names = [], self.formula_names()
        for path, text in self.formulas.items():
            try:
                Expression(text, names)
            except ValueError as error:
                found.append(Misfit(path, str(error)))
        return found

    @property
    def formulas(self) -> dict[tuple[str, ...], str]:
        """List the formulas of reward and episodes by the path of their field."""
        conditions = self.episode.conditions.items()
        listed: dict[tuple[str, ...], str] = {("episode", name): text for name, text in conditions}
        if self.reward is not None and self.reward.expression is not None:
            listed["reward", "expression"] = self.reward.expression
        return listed

    def _misfits_of_input(self, name: str, parts: tuple[SensorPart, ...]) -> list[Misfit]:
        at = ("observations", name)
        found: list[Misfit] = []
        if name in RESERVED:
            found.append(Misfit(at, f"{name!r} is an input or output of every policy; rename it"))
        if len(parts) > 1 and any(part.is_image for part in parts):
            found.append(Misfit(at, f"an image is an input of its own, got {len(parts)} parts"))
        for i, part in enumerate(parts):
            if part in parts[:i]:
                found.append(Misfit((*at, i), "is written twice in this input"))
            if part.is_image and part in [p for n, p in self.images.items() if n != name]:
                found.append(Misfit((*at, i, "topic"), "two inputs are the same camera"))
        return found

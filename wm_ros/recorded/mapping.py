"""Finds in a bag the topics that a robot file names; what is missing is said with its nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wm_core.contract.errors import RecordingError
from wm_core.robot import RobotFile
from wm_core.robot.episode import EpisodeRules, Reward
from wm_ros.commands.from_file import commands_of_channels
from wm_ros.recorded.bag import BagTopic

SIGNAL, FLAG = "sensor_msgs/JointState", "std_msgs/Bool"  #: reward and flags; starts and ends
_LISTED = 60  # topics of a bag that an error lists


@dataclass(frozen=True)
class TopicMap:
    """Says where in a bag each topic of a robot file is found.

    ``names`` leads from the file's names to the bag's; what the file may do without and the bag
    lacks is not in it, and ``notes`` say what that means.
    """

    file: RobotFile  #: as far as the bag can feed it
    names: Mapping[str, str]
    notes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class _Wanted:
    what: str
    topic: str
    message: str
    required: bool = True


def map_topics(
    file: RobotFile, topics: Mapping[str, BagTopic], namespace: str = "", *, rewards: bool = True
) -> TopicMap:
    """Find what ``file`` names among the ``topics`` of a bag.

    Args:
        file: of the robot.
        topics: of the bag by name.
        namespace: under which the robot's nodes ran, such as /robot1.
        rewards: whether rewards are read; without, every reward is 0.

    Raises:
        RecordingError: where a topic is missing or carries another message, with the nearest.
    """
    file, notes = _readable(file, rewards=rewards)
    names: dict[str, str] = {}
    missing: list[str] = []
    for wanted in _wanted(file):
        name = full_name(wanted.topic, namespace)
        found = topics.get(name)
        if found is not None and found.message == wanted.message and found.count:
            names[wanted.topic] = name
        elif found is not None and not found.count:
            if wanted.required:
                missing.append(f"{name} ({wanted.what}) is in the bag without any message")
        elif found is not None:
            missing.append(
                f"{wanted.what} expects {wanted.message} on {name}, which carries {found.message}"
            )
        elif wanted.required:
            missing.append(_missing(wanted, name, topics.values()))
        elif wanted.what != "reward" or file.reward is not None:  # named, and not just usual
            notes.append(f"{_missing(wanted, name, topics.values())}; it is taken as silent")
    if missing:
        more = "; the bag has " + ", ".join(_listed(topics.values()))
        raise RecordingError("; ".join(missing) + _under(file, topics, namespace) + more)
    reward = file.reward or Reward(topic="reward")
    if reward.topic is not None and reward.topic not in names:
        notes.append(f"the bag has no messages on {reward.topic!r}, so every reward is 0")
        file = file.model_copy(update={"reward": Reward(topic=reward.topic, required=False)})
    start = file.episode.start_topic
    if not file.episode.autostart and start not in names:
        notes.append("nothing in the bag starts episodes, so each begins where the last one ends")
        rules = file.episode.model_copy(update={"autostart": True})
        file = file.model_copy(update={"episode": rules})
    return TopicMap(file, names, tuple(notes))


def full_name(topic: str, namespace: str = "") -> str:
    """Give the name that a topic of a robot file has in a bag."""
    space = "/" + namespace.strip("/") if namespace.strip("/") else ""
    return topic if topic.startswith("/") else f"{space}/{topic.removeprefix('~/')}"


def _readable(file: RobotFile, *, rewards: bool) -> tuple[RobotFile, list[str]]:
    """Leave out of a robot file what no bag can answer: services, and rewards if so asked."""
    notes: list[str] = []
    changed: dict[str, object] = {}
    if file.episode.reset is not None:
        changed["episode"] = file.episode.model_copy(update={"reset": None})
        notes.append(
            f"calls of {file.episode.reset.service} are not in a bag: episodes follow each other"
        )
    if not rewards:
        changed["reward"] = Reward(topic="reward", required=False)
        rules: EpisodeRules = file.episode.model_copy(
            update={"reset": None, "end_if": None, "terminal_if": None}
        )
        changed |= {"values": {}, "episode": rules}
        notes.append("every reward is 0, and no condition ends an episode, as was asked for")
    return (file.model_copy(update=changed) if changed else file), notes


def _wanted(file: RobotFile) -> Iterator[_Wanted]:
    for name, parts in file.observations.items():
        for part in parts:
            for topic in part.topics:
                yield _Wanted(f"observation {name}", topic, part.type)
    for channel, command in zip(
        file.actions, commands_of_channels(file.actions, installed=False).channels, strict=True
    ):
        yield _Wanted("action", channel.topic, command.command.message)
        if channel.takeover:
            yield _Wanted("takeover", channel.takeover, command.command.message, required=False)
    for name, number in file.values.items():
        yield _Wanted(f"value {name}", number.topic, number.type)
    reward = file.reward or Reward(topic="reward")
    if reward.topic is not None:
        yield _Wanted("reward", reward.topic, SIGNAL, required=False)
    for rule in ("start_topic", "end_topic", "fail_topic"):
        topic = getattr(file.episode, rule)
        if topic is not None:
            yield _Wanted(rule, topic, FLAG, required=False)


def _missing(wanted: _Wanted, name: str, topics: Iterable[BagTopic]) -> str:
    alike = [t.name for t in topics if t.message == wanted.message]
    others = [t.name for t in topics if t.message != wanted.message]
    near = difflib.get_close_matches(name, alike, n=1, cutoff=0.3)
    near = near or difflib.get_close_matches(name, others, n=1, cutoff=0.6) or alike[:1]
    hint = f", did you mean {near[0]}?" if near else ""
    return f"no topic {name} ({wanted.what}, {wanted.message}){hint}"


def _under(file: RobotFile, topics: Mapping[str, BagTopic], namespace: str) -> str:
    """Name the namespace under which all of them would be found, where there is one."""
    wanted = [w.topic for w in _wanted(file) if w.required and not w.topic.startswith("/")]
    first = f"/{wanted[0].removeprefix('~/')}" if wanted else ""
    spaces = [name.removesuffix(first) for name in topics if first and name.endswith(first)]
    for space in spaces:
        if space != namespace and all(full_name(topic, space) in topics for topic in wanted):
            return f"; --namespace {space or '/'} finds them all"
    return ""


def _listed(topics: Iterable[BagTopic]) -> list[str]:
    found = [f"{topic.name} ({topic.message})" for topic in topics]
    return sorted(found)[:_LISTED] + (["..."] if len(found) > _LISTED else [])

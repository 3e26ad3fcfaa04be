"""Says why a topic on which nothing was heard is silent, from what the graph knows."""

from __future__ import annotations

from dataclasses import dataclass

RAW_IMAGE = "sensor_msgs/Image"  #: the message that may be larger than the middleware carries


@dataclass(frozen=True, slots=True)
class Talker:
    """Describes one publisher on a topic."""

    node: str  #: with its namespace
    message: str  #: such as sensor_msgs/Image
    reliability: str = ""  #: such as BEST_EFFORT
    durability: str = ""


@dataclass(frozen=True, slots=True)
class Unheard:
    """Holds what is known of a topic on which nothing was heard."""

    topic: str  #: as the node heard it, with its namespace
    message: str
    is_image: bool = False
    wants_reliable: bool = False
    publishers: tuple[Talker, ...] = ()
    alike: tuple[str, ...] = ()  #: other topics that carry such messages


def why_unheard(known: Unheard) -> str:
    """Say in one sentence, for people, why nothing was heard and what to do about it."""
    if not known.publishers:
        hint = f"; {known.message} comes on {', '.join(known.alike[:5])}" if known.alike else ""
        return f"nobody publishes on {known.topic} (expected {known.message}){hint}"
    others = sorted({p.message for p in known.publishers if p.message != known.message})
    if others and all(p.message != known.message for p in known.publishers):
        return (
            f"{known.topic} carries {' and '.join(others)} from {_nodes(known.publishers)}, "
            f"expected {known.message}: name another topic, or another type of sensor"
        )
    fitting = [p for p in known.publishers if p.message == known.message]
    if known.wants_reliable and all(p.reliability == "BEST_EFFORT" for p in fitting):
        return (
            f"{_nodes(known.publishers)} publishes on {known.topic} as best effort and this node "
            "asks for reliable, so nothing can come: set image_reliability: best_effort"
        )
    text = (
        f"{_nodes(known.publishers)} publishes on {known.topic}, but nothing came; it may not "
        "have begun, or wait for something itself"
    )
    if known.is_image and known.message == RAW_IMAGE:
        text += (
            "; raw images of more than 0.5 MB get lost on their way unless publisher and node use "
            "the Fast DDS profile of this package: use it, or a CompressedImage"
        )
    return text


def _nodes(publishers: tuple[Talker, ...]) -> str:
    return ", ".join(sorted({p.node for p in publishers})[:3])

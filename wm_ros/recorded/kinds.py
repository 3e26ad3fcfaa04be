"""Describes the fields of messages as ROS's own classes do, of definitions in a bag."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_BASE, _NAME, _ARRAY, _SEQUENCE = 1, 2, 3, 4  # kinds of a field's node
_WORDS = {"float32": "float", "float64": "double", "bool": "boolean"}


class MessageFields:
    """Answers for one message what ``get_fields_and_field_types`` of its class answers.

    Args:
        definitions: name -> (constants, fields) as rosbags has them.
        message: such as sensor_msgs/JointState.

    Raises:
        ImportError: where there is no definition of it.
    """

    def __init__(self, definitions: Mapping[str, Any], message: str) -> None:
        name = message.replace("/", "/msg/")
        if name not in definitions:
            raise ImportError(f"{message} is defined neither in the bag nor by rosbags")
        self._fields = {field: _word(node) for field, node in definitions[name][1]}

    def get_fields_and_field_types(self) -> dict[str, str]:
        """List the types of the fields by name, in the words of ROS."""
        return dict(self._fields)


def _word(node: Any) -> str:
    kind, about = int(node[0]), node[1]
    if kind == _BASE:
        base = about[0] if isinstance(about, tuple) else about
        return _WORDS.get(str(base), str(base))
    if kind == _NAME:
        return str(about).replace("/msg/", "/")
    inner, count = about
    if kind == _ARRAY:
        return f"{_word(inner)}[{count}]"
    return f"sequence<{_word(inner)}>" if not count else f"sequence<{_word(inner)}, {count}>"

"""Reads what a task says of itself: its view, as in ``CartPole-v1@pixels``, and its names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from wm_core.contract.errors import SettingsError, nearest

VIEWS = ("pixels", "both")  #: rendered frames instead of, or beside, the observations
IMAGE_KEY, VECTOR_KEY = "image", "vector"  #: names of the inputs of a task with a view


def split_view(task: str) -> tuple[str, str]:
    """Split the name of a task into that of its environment and its view, empty for none.

    Raises:
        SettingsError: for a view that does not exist.
    """
    name, at, view = task.partition("@")
    if at and view not in VIEWS:
        unknown = nearest(view, VIEWS, what="view")
        raise SettingsError(f"task {task!r}: expected @pixels or @both; {unknown}")
    return name, view


def names_of(about: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """Name the numbers of the observation ``key`` as a task's metadata do; () where they do not.

    Args:
        about: ``metadata`` of the environment; ``<key>_names`` lists them.
        key: such as ``proprio``, ``state``, or ``vector`` for a task without names.
    """
    names = about.get(f"{key}_names", ())
    return () if isinstance(names, Mapping) else tuple(names)

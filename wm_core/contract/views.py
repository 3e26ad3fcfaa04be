"""Reads the view of a task: what ``CartPole-v1@pixels`` asks for behind its ``@``."""

from __future__ import annotations

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

"""What a row is the answer to: the settings it was trained with, and the code that trained it.

A row is made again when its settings are others now.  A setting that has come since counts as the
same while it has its default, and one that is gone does not count.  Code is another matter: almost
every commit changes some of it, and hardly any what is learnt.  So a row carries a digest of the
code that decides what is learnt, without its comments and docstrings, and ``--code`` makes rows
again whose digest is another.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import io
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from wm_core.cli.train import train_settings
from wm_core.config import Config
from wm_core.contract.errors import SettingsError
from wm_core.library.resume import flat

#: what decides how an agent learns a task of ``sim``; presets do by the settings they name
LEARNING = ("nn", "world", "behavior", "agents", "replay", "training")
#: within them: what only writes down
_WRITING = ("loggers", "films.py", "gif.py", "rollout_video.py", "metrics.py", "status.py")
#: tyro's state and where stderr goes are the process's, not a thread's
_PARSING = threading.Lock()


def settings_of(options: Sequence[str]) -> dict[str, Any] | None:
    """Every setting of a training by its dotted name, as ``wm train`` takes ``options``.

    None where it refuses them, which the training then says itself.
    """
    words = list(options)
    words[words.index("--run") + 1] = "run"  # where it lies decides nothing
    with _PARSING:
        found = _settings_of(tuple(words))
    return None if found is None else dict(found)


@functools.cache
def _settings_of(options: tuple[str, ...]) -> dict[str, Any] | None:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            settings = train_settings(options)
    except (SettingsError, SystemExit):
        return None
    return flat(settings.config.model_dump(mode="json")) | {"task": settings.task}


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say which settings are others ``now``, as ``replay.batch 16 -> 8``."""
    usual = flat(Config().model_dump(mode="json"))
    found = {name: before.get(name, usual.get(name)) for name in now}
    return [f"{name} {found[name]} -> {now[name]}" for name in now if found[name] != now[name]]


def code_digest(root: Path) -> str:
    """Twelve digits that change when the code of the checkout at ``root`` learns otherwise."""
    learning = [p for room in LEARNING for p in (root / "wm_core" / room).rglob("*.py")]
    learning = [p for p in learning if not {*p.parts} & {*_WRITING}]
    digest = hashlib.sha256()
    for path in sorted([*learning, *(root / "sim").glob("*.py")]):
        digest.update(str(path.relative_to(root)).encode())
        digest.update(substance(path.read_text()).encode())
    return digest.hexdigest()[:12]


def substance(source: str) -> str:
    """The code of ``source`` without comments, docstrings and layout."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [x for x in node.body if not _is_text(x)]
    return ast.dump(tree)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)

"""Errors that name what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WmError(Exception):
    """Base of every error that this project raises on purpose."""


class SettingsError(WmError, ValueError):
    """A setting, task or preset that does not exist or does not fit."""


class SpecMismatch(WmError, ValueError):
    """An observation or action that does not fit the spec it was promised to fit."""


class PolicyRefused(WmError):
    """A policy file that does not load, has no card, or fails its hash or golden rollout."""


class PolicyFailed(WmError):
    """A running policy that gave no answer, or one that is no action (NaN, infinity)."""


class ChunkRefused(WmError):
    """A chunk of experience that is truncated, too large, of another version or inconsistent."""


class ChunkVersionRefused(ChunkRefused):
    """A chunk of a version that this side does not speak; the other side is older or newer."""


class StoreError(WmError):
    """A store of experience that cannot give or take what was asked of it."""


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """A sentence saying that ``name`` is no known ``what``, with the nearest known name."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    listed = ", ".join([*options[:40], *(["..."] if len(options) > 40 else [])])
    hint = f"did you mean {close[0]!r}?" if close else f"known: {listed}"
    return f"unknown {what} {name!r}; {hint}"

"""Defines the errors of this project; each says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class WmError(Exception):
    """Is the base of every error that this project raises on purpose."""


class SettingsError(WmError, ValueError):
    """Reports a setting, task or preset that does not exist or does not fit."""


class SpecMismatch(WmError, ValueError):
    """Reports an observation or action that does not fit its spec."""


class PolicyRefused(WmError):
    """Reports a policy file that does not load, lacks a card, or fails hash or golden rollout."""


class PolicyFailed(WmError):
    """Reports a running policy without an answer, or with NaN or infinity in it."""


class ChunkRefused(WmError):
    """Reports a chunk that is truncated, too large, of another version or inconsistent."""


class ChunkVersionRefused(ChunkRefused):
    """Reports a chunk of another version: the other side is older or newer than this one."""


class StoreError(WmError):
    """Reports a store of experience that cannot do what was asked of it."""


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """Say that ``name`` is no known ``what``, and which known name is nearest."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    listed = ", ".join([*options[:40], *(["..."] if len(options) > 40 else [])])
    hint = f"did you mean {close[0]!r}?" if close else f"known: {listed}"
    return f"unknown {what} {name!r}; {hint}"

"""Defines the errors of this project; each says what was expected, what came and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_MOST_LISTED = 4000  # characters of an error that lists topics or files
MAX_REASON = 500  #: characters of a reason that may repeat what came from outside


def shown(text: object, limit: int = MAX_REASON) -> str:
    """Make one line of ``text`` that may be printed, at most ``limit`` characters of it.

    Control characters, which a terminal would obey, become question marks.
    """
    line = str(text)
    if len(line) > limit:
        line = line[: limit - 4] + " ..."
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in line)


class WmError(Exception):
    """Is the base of every error that this project raises on purpose."""


class SettingsError(WmError, ValueError):
    """Reports a setting, task or preset that does not exist or does not fit."""


class EnvFault(WmError):
    """Reports what a user's environment did wrong: a raise, or a result of the wrong form.

    The message is one line that names the task, the method and the fault.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(shown(reason))


class EnvRaised(EnvFault):
    """Reports an environment that raised, ended or hung: made anew, it may go on."""


class SpecMismatch(WmError, ValueError):
    """Reports an observation or action that does not fit its spec."""


class PolicyRefused(WmError):
    """Reports a policy file that does not load, lacks a card, or fails hash or golden rollout.

    The reason is one short line of printable characters, whatever the file held.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(shown(reason))


class PolicyUnready(PolicyRefused):
    """Reports a policy that cannot be used now, for a cause that may pass: try it again later."""


class PolicyFailed(WmError):
    """Reports a running policy without an answer, or with NaN or infinity in it."""


class PolicySlow(PolicyFailed):
    """Reports a policy whose steps take more processor time than the robot allows."""


class ChunkRefused(WmError):
    """Reports a chunk that is truncated, too large, of another version or inconsistent.

    The reason goes back over the wire, into the ledger and into logs: it is one short line of
    printable characters, whatever the chunk held.
    """

    def __init__(self, reason: object) -> None:
        super().__init__(shown(reason))


class ChunkVersionRefused(ChunkRefused):
    """Reports a chunk of another version: the other side is older or newer than this one."""


class StoreError(WmError):
    """Reports a store of experience that cannot do what was asked of it."""


class RecordingError(WmError):
    """Reports a recording of another system that is damaged or does not fit how it is mapped."""

    def __init__(self, reason: object) -> None:
        super().__init__(shown(reason, _MOST_LISTED))


def nearest(name: str, known: Iterable[str], *, what: str) -> str:
    """Say that ``name`` is no known ``what``, and which known name is nearest."""
    options = sorted(known)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.4)
    listed = ", ".join([*options[:40], *(["..."] if len(options) > 40 else [])])
    hint = f"did you mean {close[0]!r}?" if close else f"known: {listed}"
    return f"unknown {what} {name!r}; {hint}"

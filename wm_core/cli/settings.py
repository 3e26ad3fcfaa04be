"""Read command-line options into a settings class."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Sequence
from typing import TypeVar

import tyro
from pydantic import BaseModel

from wm_core.renamed import renewed_words

T = TypeVar("T", bound=BaseModel)


def parse(
    model: type[T],
    args: Sequence[str],
    *,
    verb: str,
    default: T | None = None,
    more: str = "",
) -> T:
    """Read the settings in ``args``; a typo or a bad value ends the process with status 2.

    Args:
        model: the class of the settings; its docstring and descriptions are the help text.
        args: the words after the verb.
        verb: named in the help and in errors.
        default: values of the options that are not given; None: the defaults of ``model``.
        more: paragraphs that follow the docstring in the help text.
    """
    args, notes = renewed_words(args)
    sys.stderr.writelines(f"wm {verb}: {note}\n" for note in notes)
    start = tyro.MISSING_NONPROP if default is None else default
    text = f"{inspect.getdoc(model)}\n\n{more}" if more else None
    return tyro.cli(model, args=args, prog=f"wm {verb}", default=start, description=text)


def peek(args: Sequence[str], *names: str) -> dict[str, str]:
    """Read a few ``--name value`` options before the others are known."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for name in names:
        first.add_argument(f"--{name}", default=argparse.SUPPRESS, nargs="?")
    found, _ = first.parse_known_args(list(args))
    return {k: v for k, v in vars(found).items() if v is not None}

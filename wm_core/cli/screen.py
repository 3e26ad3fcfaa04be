"""Text for a terminal: wrapped at words, within its width; one line in logs and pipes."""

from __future__ import annotations

import io
import os
import re
import sys
import textwrap
from typing import TextIO

COLUMNS = 80  #: widest line of help texts and messages


def width(stream: TextIO) -> int | None:
    """Columns that a message on ``stream`` may take; None where that is no terminal."""
    if not stream.isatty():
        return None
    try:
        stated = int(os.environ.get("COLUMNS", ""))
    except ValueError:
        stated = 0
    try:
        columns = stated or os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        columns = COLUMNS
    return max(20, columns)


def wrapped(text: str, columns: int = COLUMNS, *, indent: str = "") -> str:
    """``text`` in lines of at most ``columns``, broken at words; a longer word stays whole.

    Args:
        text: paragraphs between empty lines; lines that begin with a space stay as they are.
        columns: of the longest line.
        indent: what every line of a paragraph but the first begins with.
    """
    parts = []
    for paragraph in text.split("\n\n"):
        kept = any(line.startswith(" ") for line in paragraph.splitlines())
        parts.append(
            paragraph
            if kept
            else textwrap.fill(
                " ".join(paragraph.split()),
                columns,
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
        )
    return "\n\n".join(parts)


def complain(text: str) -> None:
    """Write a message to standard error: wrapped on a terminal, else as one line."""
    columns = width(sys.stderr)
    shown = text if columns is None else wrapped(text, columns, indent="  ")
    sys.stderr.write(f"{shown}\n")


def without_frame(text: str) -> str:
    """What stands in a framed ``text``, under its title, as one line for a log."""
    title, *lines = text.strip().splitlines() or [""]
    inside = "\n".join(line.strip("│| ") for line in lines)
    parts = re.split(r"^[─╰╯+-]{5,}$", inside, flags=re.MULTILINE)
    return "; ".join(" ".join(part.split()) for part in parts if part.strip()) or title


class Captured(io.StringIO):
    """Keeps what is printed as it would look on ``stream``: with its frames and colours."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__()
        self._stream = stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding

    def isatty(self) -> bool:
        return self._stream.isatty()

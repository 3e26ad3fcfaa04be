"""Messages are wrapped on a terminal, and are one line in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wm_core.cli.screen import without_frame, wrapped

ROOT = Path(__file__).parents[3]
LONG = "runs/" + "a-folder-with-a-long-name/" * 5


def wm(*words, terminal, columns="80"):
    """What ``wm`` writes to standard error, a terminal or a pipe, and its exit status."""
    mine, theirs = pty.openpty() if terminal else os.pipe()
    env = os.environ | {"COLUMNS": columns, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "wm_core.cli", *words]
    with subprocess.Popen(command, stderr=theirs, stdout=subprocess.DEVNULL, env=env) as process:
        os.close(theirs)
        said = bytearray()
        while data := read(mine):
            said += data
        status = process.wait(timeout=300)
    os.close(mine)
    return said.decode().replace("\r\n", "\n"), status


def read(end):
    """The next bytes of a pipe or a terminal; none at its end."""
    try:
        return os.read(end, 4096)
    except OSError:  # how a terminal says that the other side has gone
        return b""


def test_an_error_on_a_terminal_is_wrapped_at_words():
    said, status = wm("info", "no/such/file/" + "x" * 50, terminal=True)
    assert status == 2
    lines = said.splitlines()
    assert len(lines) > 1
    assert all(len(line) <= 80 for line in lines)
    assert "".join(" ".join(lines).split()) == "".join(
        wm("info", "no/such/file/" + "x" * 50, terminal=False)[0].split()
    )


def test_an_error_in_a_pipe_is_one_line_however_long():
    said, status = wm("trian", terminal=False, columns="20")
    assert status == 2
    assert said == "wm: unknown verb 'trian'; did you mean 'train'? (wm --help lists all)\n"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--prefill", "1.5"), "expected a whole number"),
        (("--prefil", "3"), "--prefill"),
        (("--episodes", "3"), "--episodes: expected a value greater than or equal to 10, got 3"),
    ],
)
def test_a_wrong_option_fits_a_terminal_and_is_one_line_in_a_pipe(words, why):
    framed, status = wm("demo", *words, terminal=True)
    assert status == 2
    assert [line for line in framed.splitlines() if len(plain(line)) > 80] == []
    said, status = wm("demo", *words, terminal=False)
    assert status == 2
    assert said.startswith("wm demo: ")
    assert why in said
    assert said.count("\n") == 1


def plain(line):
    """A line without the codes of its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def test_long_words_stay_whole():
    assert LONG in wrapped(f"expected a run in {LONG}, got none", 40).split()[4]


def test_paragraphs_are_kept_and_examples_stay_as_they_are():
    text = "one two three four\nfive\n\n  wm train   --run x   beside it\n\nsix"
    assert wrapped(text, 10).split("\n\n") == [
        "one two\nthree four\nfive",
        "  wm train   --run x   beside it",
        "six",
    ]


@pytest.mark.parametrize(
    "framed",
    [
        "╭─ Title ─────╮\n│ expected a, │\n│ got b       │\n│ ─────────── │\n"
        "│ see c       │\n╰─────────────╯\n",
        " Title --------\n  expected a,\n  got b\n  -----------\n  see c\n ---------------\n",
    ],
)
def test_a_frame_leaves_its_words_for_a_log(framed):
    assert without_frame(framed) == "expected a, got b; see c"

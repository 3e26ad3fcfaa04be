"""A log that someone tries to fill stays short and says what it left out."""

from __future__ import annotations

import io
import json
import logging
import socket
import subprocess
import sys
from urllib.parse import urlsplit

import pytest

from wm_core.link.trainer.log_limit import LogLimit


@pytest.fixture
def logger():
    """A logger that writes to a text, and the clock of its limit."""
    text, clock = io.StringIO(), [0.0]
    handler = logging.StreamHandler(text)
    handler.addFilter(LogLimit(3, 10.0, lambda: clock[0]))
    made = logging.Logger("test")
    made.addHandler(handler)
    return made, text, clock


def test_lines_of_one_kind_are_limited_and_counted_and_others_pass(logger):
    made, text, clock = logger
    for n in range(50):
        if n == 40:
            clock[0] = 11.0
        made.warning("bad peer %d", n)
    made.error("something else")
    lines = text.getvalue().splitlines()
    assert lines == [
        "bad peer 0",
        "bad peer 1",
        "bad peer 2",
        "bad peer 40 (37 more of this kind were left out)",
        "bad peer 41",
        "bad peer 42",
        "something else",
    ]


def test_a_line_is_cut_and_can_neither_break_nor_colour(logger):
    made, text, _ = logger
    made.warning("robot %s", "x\n\x1b[31mroot logged in" + "y" * 100_000)
    (line,) = text.getvalue().splitlines()
    assert len(line) < 600
    assert "\x1b" not in line


def test_hundreds_of_bad_requests_leave_a_short_log(tmp_path, wait_until):
    root = tmp_path / "run"
    words = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root, "--port", "0"]
    with (tmp_path / "log").open("wb") as file:
        process = subprocess.Popen(list(map(str, words)), stdout=file, stderr=file)
        try:
            wait_until((root / "service.json").exists)
            url = json.loads((root / "service.json").read_text())["url"]
            address = ("127.0.0.1", urlsplit(url).port)
            for _ in range(300):
                with socket.create_connection(address, timeout=60) as sock:
                    sock.sendall(b"\x00\xff nonsense " + b"z" * 2000 + b"\r\n\r\n")
                    sock.recv(1000)
        finally:
            process.terminate()
            process.wait(300)
    assert len((tmp_path / "log").read_bytes()) < 20_000

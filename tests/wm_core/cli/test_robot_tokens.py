"""``wm robot add | list | revoke``: which robots the service lets in."""

from __future__ import annotations

import subprocess
import sys

import pytest

from wm_core.cli.main import main
from wm_core.link.trainer.tokens import Tokens


@pytest.fixture
def wm(capsys):
    """Runs ``wm`` and gives back (exit status, what it said, its errors)."""

    def run(*words):
        status = main([*map(str, words)])
        said = capsys.readouterr()
        return status, said.out, said.err

    return run


def test_a_robot_is_added_listed_and_revoked(wm, tmp_path):
    path = tmp_path / "tokens"
    status, said, _ = wm("robot", "add", "rover", "--tokens", path)
    token = said.split()[-1]
    assert status == 0
    assert Tokens(path).check(token, "rover") == "ok"
    assert token not in path.read_text()
    wm("robot", "add", "arm", "--tokens", path, "--expires", "90d")
    status, said, _ = wm("robot", "list", "--tokens", path)
    assert [line.split()[0] for line in said.splitlines()] == ["rover", "arm"]
    assert "until 20" in said
    assert wm("robot", "revoke", "rover", "--tokens", path)[:2] == (
        0,
        "1 token(s) of rover revoked\n",
    )
    assert Tokens(path).check(token, "rover") == "unknown"


def test_a_person_gets_a_token_that_may_look(wm, tmp_path):
    path = tmp_path / "tokens"
    wm("robot", "add", "rover", "--tokens", path)
    said = wm("robot", "add", "anna", "--may-look", "--expires", "90d", "--tokens", path)[1]
    assert Tokens(path).seen_by(said.split()[-1]) is None
    rover, anna = wm("robot", "list", "--tokens", path)[1].splitlines()
    assert "may look" not in rover
    assert "may look  until 20" in anna


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("add", "Rover!"), "expected 1 to 64"),
        (("add", "rover", "--expires", "soon"), "2027-01-31"),
        (("add", "rover", "--expires", "2001-01-01"), "past"),
        (("revoke", "nobody"), "it has those of known"),
        (("add", "x\ny 00"), "expected 1 to 64"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(wm, tmp_path, words, error):
    path = tmp_path / "tokens"
    wm("robot", "add", "known", "--tokens", path)
    before = path.read_bytes()
    status, _, err = wm("robot", *words, "--tokens", path)
    assert (status, error in err, len(err.splitlines())) == (2, True, 1)
    assert path.read_bytes() == before


def test_the_help_teaches(tmp_path):
    words = [sys.executable, "-m", "wm_core.cli.main", "robot", "add", "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "token_file" in said

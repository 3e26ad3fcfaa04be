"""Who is let in is what the tokens file says at that moment, and nothing else."""

from __future__ import annotations

import threading

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.link.trainer.tokens import Tokens, add_token, list_tokens, revoke_tokens


@pytest.fixture
def path(tmp_path):
    return tmp_path / "tokens"


def test_a_deleted_line_revokes_at_once_and_leaves_the_others(path):
    rover, other = add_token(path, "rover"), add_token(path, "other")
    tokens = Tokens(path)
    assert tokens.check(rover, "rover") == tokens.check(other, "other") == "ok"
    assert tokens.check(rover, "other") == "other"
    assert revoke_tokens(path, "rover") == 1
    assert tokens.check(rover, "rover") == "unknown"
    assert tokens.check(other, "other") == "ok"


def test_a_line_deleted_by_an_editor_of_the_same_length_revokes_too(path):
    rover = add_token(path, "rover")
    tokens = Tokens(path)
    text = path.read_text()
    path.write_text("#" + text[1:])  # the same size, perhaps within one tick of the clock
    assert tokens.check(rover, "rover") == "unknown"


def test_without_its_file_nobody_is_let_in_until_it_is_back(path):
    rover = add_token(path, "rover")
    tokens = Tokens(path)
    kept = path.read_bytes()
    path.unlink()
    assert tokens.check(rover, "rover") == "unreadable"
    path.mkdir()
    assert tokens.check(rover, "rover") == "unreadable"
    path.rmdir()
    path.write_bytes(kept)
    assert tokens.check(rover, "rover") == "ok"


@pytest.mark.parametrize("rubbish", [b"\xff\xfe\x00", b"rover", b"rover zz", b"a b c d", b"\x00"])
def test_a_line_that_cannot_be_read_lets_nobody_in_and_harms_no_other(path, rubbish):
    rover, other = add_token(path, "rover"), add_token(path, "other")
    tokens = Tokens(path)
    lines = path.read_bytes().splitlines()
    path.write_bytes(rubbish + b"\n" + lines[1])
    assert tokens.check(rover, "rover") == "unknown"
    assert tokens.check(other, "other") == "ok"
    with pytest.raises(SettingsError, match=":1:"):
        Tokens(path)


def test_a_file_without_a_newline_at_its_end_keeps_its_last_line(path):
    first = add_token(path, "rover")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    second = add_token(path, "other")
    tokens = Tokens(path)
    assert (tokens.check(first, "rover"), tokens.check(second, "other")) == ("ok", "ok")


def test_an_expired_token_is_unknown(path):
    old = add_token(path, "rover", expires_s=1.0)  # in 1970
    new = add_token(path, "rover", expires_s=4e9)  # in 2096
    tokens = Tokens(path)
    assert (tokens.check(old, "rover"), tokens.check(new, "rover")) == ("unknown", "ok")
    assert [entry.is_expired(2e9) for entry in list_tokens(path)] == [True, False]


def test_the_file_is_the_owners_alone_and_comments_stay(path):
    path.write_text("# robots of the hall\n")
    path.chmod(0o644)
    add_token(path, "rover")
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("# robots of the hall\nrover ")


def test_tokens_made_side_by_side_are_all_kept(path):
    threads = [threading.Thread(target=add_token, args=(path, f"r{n}")) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(e.robot for e in list_tokens(path)) == sorted(f"r{n}" for n in range(12))


@pytest.mark.parametrize("token", ["", None, "x" * 100_000, "\udcff", "é"])
def test_absurd_tokens_are_unknown(path, token):
    add_token(path, "rover")
    assert Tokens(path).check(token, "rover") == "unknown"


def test_a_robots_token_sees_its_own_robot_and_a_persons_all_of_them(path):
    rover, anna = add_token(path, "rover"), add_token(path, "anna", may_look=True)
    late = add_token(path, "late", may_look=True, expires_s=1.0)
    tokens = Tokens(path)
    assert tokens.seen_by(rover) == {"rover"}
    assert tokens.seen_by(anna) is tokens.seen_by(add_token(path, "operator")) is None
    assert tokens.seen_by(late) == tokens.seen_by("wrong") == tokens.seen_by(None) == set()
    path.unlink()
    assert tokens.seen_by(anna) == set()


def test_a_line_is_marked_by_hand_before_or_behind_its_end(path):
    token = add_token(path, "anna", expires_s=4e9)
    line = path.read_text().strip()
    name, sha256, expires = line.split()
    for marked in (f"{line} look", f"{name} {sha256} look {expires}"):
        path.write_text(f"{marked}\n")
        assert Tokens(path).seen_by(token) is None
        assert [entry.may_look for entry in list_tokens(path)] == [True]
    path.write_text(f"{name} {sha256} looks {expires}\n")
    with pytest.raises(SettingsError):
        Tokens(path)

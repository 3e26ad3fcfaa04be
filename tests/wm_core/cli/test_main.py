"""The verb table, its help, and what a wrong word gets."""

import platform
import sqlite3
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from wm_core.cli import main as cli
from wm_core.contract.errors import SettingsError


def test_help_lists_every_verb_without_importing_one(capsys):
    assert cli.main(["--help"]) == 0
    shown = capsys.readouterr().out
    assert all(verb in shown for verb in cli.VERBS)


def test_help_comes_without_what_takes_long_to_import():
    code = "import sys, wm_core.cli.main as m; m.main(['--help']); "
    code += "assert not {'torch', 'pydantic', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_the_version_names_what_runs_without_importing_it():
    code = "import sys, wm_core.cli.main as m; m.main(['--version']); "
    code += "assert not {'torch', 'gymnasium', 'numpy'} & sys.modules.keys()"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.startswith("wm_ros ")
    assert f"Python {platform.python_version()}" in done.stdout
    assert f"torch {metadata.version('torch')}" in done.stdout


def test_a_library_that_is_not_installed_is_said(monkeypatch):
    def absent(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", absent)
    assert "torch not installed" in cli.version()


def test_unknown_verb_names_the_nearest(capsys):
    assert cli.main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err


@pytest.fixture
def verb(monkeypatch):
    """A verb whose main raises what it is told to."""

    def install(error: BaseException) -> None:
        def main(argv):
            raise error

        monkeypatch.setitem(sys.modules, "wm_test_verb", type("Verb", (), {"main": main}))
        monkeypatch.setitem(cli.VERBS, "fail", ("wm_test_verb", "fails"))

    return install


def test_an_error_on_purpose_is_one_line_and_status_2(verb, capsys):
    verb(SettingsError("expected a, got b"))
    assert cli.main(["fail"]) == 2
    assert capsys.readouterr().err == "wm fail: expected a, got b\n"


def broken_rules(tmp_path):
    """What the machine refuses: each error as Python raises it, and words of the one line."""
    file = tmp_path / "file"
    file.write_text("x")
    long = tmp_path / ("n" * 300)
    yield (file / "below").mkdir, "file/below: Not a directory; expected a folder"
    yield tmp_path.read_text, "Is a directory; expected a file"
    yield file.mkdir, "File exists; something else stands there"
    yield (tmp_path / "absent").read_text, "absent: No such file"
    yield (tmp_path / "none" / "new.json.0123abcd.tmp").open, "none/new.json: No such file"
    yield long.mkdir, "File name too long; choose a shorter name"
    yield lambda: Path("/dev/full").write_text("x"), "No space left on device; make room"
    holder, other = (sqlite3.connect(tmp_path / "held", timeout=0) for _ in range(2))
    holder.execute("BEGIN EXCLUSIVE")
    yield lambda: other.execute("BEGIN EXCLUSIVE"), "locked); wait for the process"
    holder.close()
    other.close()


def test_what_the_machine_refuses_is_one_line_and_status_2(verb, tmp_path, capsys):
    for act, words in broken_rules(tmp_path):
        with pytest.raises((OSError, sqlite3.OperationalError)) as caught:
            act()
        verb(caught.value)
        assert cli.main(["fail"]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("wm fail: ")
        assert words in line


def test_an_error_of_the_system_without_a_cure_is_not_hidden(verb):
    for error in (OSError("no number"), sqlite3.OperationalError("no such table: chunks")):
        verb(error)
        with pytest.raises(type(error)):
            cli.main(["fail"])


def test_ctrl_c_is_status_130(verb):
    verb(KeyboardInterrupt())
    assert cli.main(["fail"]) == 130


def test_an_error_in_the_code_is_not_hidden(verb):
    verb(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        cli.main(["fail"])


def test_a_missing_extra_is_named(verb, capsys):
    verb(ModuleNotFoundError("No module named 'torch'", name="torch"))
    assert cli.main(["fail"]) == 2
    assert "torch" in capsys.readouterr().err

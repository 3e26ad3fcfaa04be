"""What only reads leaves no trace in missing, empty, foreign and abandoned folders."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from wm_core.cli.main import main
from wm_core.contract.errors import StoreError
from wm_core.store.existing import existing_store
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.reader import Store

VERBS = {
    "info": ("info", "{}"),
    "evaluate run": ("evaluate", "--run", "{}", "--episodes", "1"),
    "evaluate checkpoint": ("evaluate", "--run", "{}", "--checkpoint", "--episodes", "1"),
    "evaluate policy": ("evaluate", "--policy", "{}", "--episodes", "1"),
    "show": ("show", "--run", "{}"),
    "export": ("export", "--run", "{}", "--to", "{}-policy"),
    "store verify": ("store", "verify", "--root", "{}"),
    "policy list": ("policy", "list", "--root", "{}"),
    "train from a store": ("train", "--store", "{}", "--run", "{}-run", "--quiet"),
    "train follow": ("train", "--store", "{}", "--run", "{}-run", "--follow", "--quiet"),
}


def tree(folder):
    """Every path below ``folder`` with what it holds."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def make_empty(path):
    path.mkdir()


def make_foreign(path):
    (path / "sub").mkdir(parents=True)
    (path / "notes.txt").write_text("nothing of ours")
    (path / "sub" / "data.mcap").write_bytes(b"no chunk")


def make_file(path):
    path.write_text("a file")


PLACES = {"missing": lambda path: None, "empty": make_empty, "foreign": make_foreign}
PLACES["file"] = make_file


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_reading_what_is_not_there_makes_nothing(verb, tmp_path, capsys):
    (tmp_path / "plaice").mkdir()  # the nearest name
    for name, make in PLACES.items():
        home = tmp_path / name
        home.mkdir()
        make(home / "place")
        before = tree(tmp_path)
        code = main([word.format(home / "place") for word in verb])
        said = capsys.readouterr().err
        assert tree(tmp_path) == before, (name, said)
        if verb[:2] == ("policy", "list"):
            continue  # it says that there is none
        assert code != 0, (name, said)
        assert said.count("\n") == 1, said


def test_a_store_that_is_misspelt_names_the_nearest_and_a_run_folder_names_its_store(tmp_path):
    Ledger(tmp_path / "run" / "store" / LEDGER_NAME).close()
    with pytest.raises(StoreError, match="did you mean 'store'"):
        existing_store(tmp_path / "run" / "stroe")
    with pytest.raises(StoreError, match="did you mean 'run'"):
        existing_store(tmp_path / "rn" / "store")
    with pytest.raises(StoreError, match=r"is a run folder; its store is .*run/store"):
        existing_store(tmp_path / "run")
    with pytest.raises(StoreError, match="expected the run folder around it"):
        existing_store(tmp_path / "run" / "store" / "store")
    assert existing_store(tmp_path / "run" / "store").name == "store"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_store_at_rest_is_read_and_stays_as_it_is(tagged):
    tagged.fill(3)
    tagged.ledger.close()
    before = tree(tagged.root)
    store = tagged.open()
    assert store.steps == 60
    store.close()
    assert main(["info", str(tagged.root), "--json"]) == 0
    run = tagged.root.parent
    assert main(["store", "verify", "--root", str(run)]) == 0
    assert tree(tagged.root) == before


def test_who_reads_sees_what_others_write_meanwhile(tagged):
    tagged.write(0, 0)
    tagged.ledger.close()
    store = tagged.open()
    assert store.steps == 20
    again = Ledger(tagged.root / LEDGER_NAME)
    again.mark_damaged(1, "noticed")
    reader = Ledger(tagged.root / LEDGER_NAME, read_only=True)
    assert reader.damaged() == {1: "noticed"}
    again.mark_damaged(1, "looked at again")
    assert reader.damaged() == {1: "looked at again"}
    assert store._ledger.damaged() == {1: "looked at again"}
    with pytest.raises(StoreError, match="opened to be read"):
        reader.mark_sound(1)
    reader.close()
    again.close()


KILLED = """
import os, sys
from pathlib import Path
from wm_core.store.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
ledger.mark_damaged(1, "written before the kill")
os._exit(9)
"""


@pytest.mark.parametrize("shared", [True, False])
def test_what_a_killed_writer_left_in_its_log_is_read(tagged, shared):
    tagged.write(0, 0)
    path = tagged.root / LEDGER_NAME
    tagged.ledger.close()
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == 9
    if not shared:  # as in a copy of the folder
        path.with_name(f"{LEDGER_NAME}-shm").unlink()
    names = sorted(p.name for p in tagged.root.iterdir())
    database = path.read_bytes()
    reader = Ledger(path, read_only=True)
    assert reader.damaged() == {1: "written before the kill"}
    reader.close()
    assert sorted(p.name for p in tagged.root.iterdir()) == names
    assert path.read_bytes() == database


def _read_as_another(root):
    """Read the store as a user who may write nowhere in it: root may write everywhere."""
    if os.geteuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    assert not os.access(root, os.W_OK)
    store = Store(root, cache_bytes=0)
    assert store.refresh() == 40
    store.close()


def test_a_folder_that_nobody_may_write_to_is_read(tagged):
    tagged.fill(2)
    tagged.ledger.close()
    with tempfile.TemporaryDirectory() as place:  # another user may not enter pytest's own
        Path(place).chmod(0o755)
        root = Path(shutil.copytree(tagged.root, Path(place) / "store"))
        folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o555)
        reader = multiprocessing.get_context("fork").Process(target=_read_as_another, args=(root,))
        reader.start()
        reader.join(120)
        for folder in folders:
            folder.chmod(0o755)
        assert reader.exitcode == 0

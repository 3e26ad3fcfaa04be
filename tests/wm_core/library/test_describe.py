"""``wm info`` on files that someone sent: a sentence, whatever they hold, and nobody waits."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest

from tests.wm_core.contract.conftest import make_golden, make_model, write_policy
from wm_core.cli.main import main
from wm_core.format.chunk import ChunkKey, ChunkMeta
from wm_core.library.describe import LOOKED_AT
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger

ESCAPE = "\x1b]0;owned\x07\x1b[2J"


def test_control_characters_of_a_card_reach_no_terminal(tmp_path, capsys):
    """They could set the title, clear the screen, or worse."""
    model = make_model(task=f"lift {ESCAPE}", run_id=ESCAPE)
    (tmp_path / "policy.onnx").write_bytes(model)
    assert main(["info", str(tmp_path)]) == 0
    told = capsys.readouterr().out
    assert "not proved" in told
    assert "lift ?]0;owned" in told
    assert not {c for c in told if not c.isprintable()} - {"\n"}
    assert main(["info", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["task"] == f"lift {ESCAPE}"


def test_a_whole_policy_is_proved(tmp_path, capsys):
    write_policy(tmp_path / "policy")
    assert main(["info", str(tmp_path / "policy")]) == 0
    assert "hashes and golden rollout hold" in capsys.readouterr().out


def huge(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(3 << 30)


ODD = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "three gigabytes": huge,
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text(ESCAPE),
}


@pytest.mark.parametrize("name", ["policy.onnx", "x.mcap"])
@pytest.mark.parametrize("kind", ODD)
def test_odd_files_end_in_one_sentence(tmp_path, capsys, kind, name):
    ODD[kind](tmp_path / name)
    assert main(["info", str(tmp_path / name)]) != 0
    error = capsys.readouterr().err
    assert "Traceback" not in error
    assert "\x1b]" not in error


@pytest.mark.parametrize("kind", ["a pipe", "a device", "three gigabytes"])
@pytest.mark.parametrize("name", ["policy.golden.npz", "policy.manifest.json"])
def test_odd_files_beside_a_policy_do_not_hang(tmp_path, capsys, kind, name):
    folder = write_policy(tmp_path / "policy", golden=make_golden(make_model()))
    (folder / name).unlink()
    ODD[kind](folder / name)
    assert main(["info", str(folder)]) != 0
    assert "Traceback" not in capsys.readouterr().err


def test_of_a_large_store_the_newest_chunks_are_looked_at(tmp_path, spec, make_chunk, capsys):
    """How many is said; an index that was never written is made of these alone."""
    root, few = tmp_path / "store", 3
    with contextlib.closing(Ledger(root / LEDGER_NAME)) as ledger:
        with ledger.writing():
            for seq in range(LOOKED_AT):  # rows whose files were evicted
                key = ChunkKey("rover", "0" * 32, seq)
                meta = ChunkMeta(**key._asdict(), spec=spec, first_step=3 * seq, steps=3)
                ledger.add(key, "0" * 64, 10, meta)
        for seq in range(few):
            key, data, digest = make_chunk(seq)
            assert ingest(root, ledger, key, data, digest).ok
    assert main(["info", str(root), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["steps"] == 3 * (LOOKED_AT + few)
    assert facts["invalid_steps_of"] == f"the newest {LOOKED_AT} of {LOOKED_AT + few} chunks"

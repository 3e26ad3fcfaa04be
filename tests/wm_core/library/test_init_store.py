"""``--init-store`` copies every chunk that it can, and says which it could not."""

from __future__ import annotations

import contextlib
import json
import os

import pytest

from wm_core.contract.errors import StoreError
from wm_core.format.chunk import chunk_path
from wm_core.library import init_store
from wm_core.library.init_store import NAME, copied_steps, copy_steps, left_out_of_copy
from wm_core.library.run_folder import TrainSettings
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.verdict import Verdict


@pytest.fixture
def source(tmp_path, make_chunk):
    """A store of three chunks of three steps each, and their keys."""
    root, session = tmp_path / "source", make_chunk()[0].session
    ledger = Ledger(root / LEDGER_NAME)
    chunks = [make_chunk(seq, session=session) for seq in range(3)]
    for chunk in chunks:
        assert ingest(root, ledger, *chunk).kind == "stored"
    ledger.close()
    return root, [key for key, _, _ in chunks]


@pytest.fixture
def settings(tmp_path, source):
    return TrainSettings(run=tmp_path / "run", task="seek", init_store=source[0])


def copied(settings):
    with contextlib.ExitStack() as undo:
        steps = copy_steps(settings, undo)
        undo.pop_all()
    return steps


def test_a_chunk_is_copied_however_large_it_is(settings, monkeypatch):
    def with_a_small_bound(*chunk, **options):
        return ingest(*chunk, **({"max_bytes": 100} | options))

    monkeypatch.setattr(init_store, "ingest", with_a_small_bound)
    assert copied(settings) == 9
    assert left_out_of_copy(settings.run) == ""


@pytest.mark.parametrize("kind", ["no_room", "busy"])
def test_a_disk_that_takes_nothing_refuses_the_start_and_the_next_one_goes_on(
    settings, monkeypatch, kind
):
    def fails_at_the_second(root, ledger, key, *chunk, **options):
        if key.seq == 1:
            return Verdict(kind, "the disk is full")
        return ingest(root, ledger, key, *chunk, **options)

    with monkeypatch.context() as patched:
        patched.setattr(init_store, "ingest", fails_at_the_second)
        with pytest.raises(StoreError, match=r"the disk is full; .* the same command again"):
            copied(settings)
    assert not (settings.run / NAME).exists()
    assert copied(settings) == copied_steps(settings.run) == 9


def test_chunks_that_cannot_be_copied_are_counted_and_named(settings, source):
    root, keys = source
    os.truncate(chunk_path(root, keys[0]), 100)
    chunk_path(root, keys[2]).unlink()
    assert copied(settings) == copied(settings) == 3  # the second time it is only read
    line = left_out_of_copy(settings.run)
    assert line.startswith(f"2 chunks of --init-store {root} could not be copied, such as rover/")
    assert "\n" not in line
    named = json.loads((settings.run / NAME).read_text())["left_out"]
    assert [name[-8:] for name in named] == ["00000000", "00000002"]


def test_a_store_that_is_copied_whole_has_nothing_to_say(settings):
    assert copied(settings) == 9
    assert left_out_of_copy(settings.run) == ""
    assert left_out_of_copy(settings.run / "absent") == ""

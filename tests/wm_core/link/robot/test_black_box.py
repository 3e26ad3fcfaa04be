"""What was acknowledged or refused is kept within its bounds, over all sessions and restarts."""

from __future__ import annotations

import os
import time

import pytest

from wm_core.contract.files import write_durably
from wm_core.format.chunk import chunk_path
from wm_core.link.robot.black_box import BlackBox, give_way
from wm_core.link.robot.journal import SpoolSession


@pytest.fixture
def lay(tmp_path, make_chunk):
    """Lays a chunk that was sealed some seconds ago, in a session of its own."""

    def lay(age_s=0.0, session=None, seq=0):
        key, data, _ = make_chunk(seq, session=session)
        path = chunk_path(tmp_path, key)
        write_durably(path, data)
        sealed_s = time.time() - age_s
        os.utime(path, (sealed_s, sealed_s))
        return next(w for w in SpoolSession(path.parent).waiting() if w.key == key)

    return lay


def box(folder, *, keep_bytes=10**9, keep_s=0.0, refused_bytes=10**9):
    return BlackBox(folder, keep_bytes=keep_bytes, keep_s=keep_s, refused_bytes=refused_bytes)


def kept(folder, kind):
    return sorted(path.parents[1].name for path in folder.glob(f"*/*/{kind}/*.mcap"))


def test_the_newest_bytes_are_kept_after_a_restart_too(tmp_path, lay):
    old, middle, new = lay(300), lay(200), lay(100)
    bound = middle.bytes + new.bytes
    first = box(tmp_path)
    assert first.acknowledged(old)
    assert first.acknowledged(middle)
    second = box(tmp_path, keep_bytes=bound)
    assert second.acknowledged(new)
    assert kept(tmp_path, "sent") == sorted([middle.key.session, new.key.session])
    assert second.counters()["kept_bytes"] == bound


def test_what_is_older_than_the_owner_wants_goes(tmp_path, lay):
    black_box = box(tmp_path, keep_s=3600)
    old, new = lay(7200), lay(60)
    assert black_box.acknowledged(old)
    assert black_box.acknowledged(new)
    assert kept(tmp_path, "sent") == [new.key.session]


def test_a_black_box_of_no_bytes_deletes(tmp_path, lay):
    black_box = box(tmp_path, keep_bytes=0, refused_bytes=0)
    acknowledged, refused = lay(), lay()
    assert black_box.acknowledged(acknowledged)
    assert black_box.refused(refused, "409: other bytes")
    assert not list(tmp_path.glob("*/*/*.mcap"))
    assert not list(tmp_path.glob("*/*/*/*"))


def test_a_refused_chunk_leaves_with_its_reason(tmp_path, lay):
    first, second = lay(100), lay(50)
    black_box = box(tmp_path, refused_bytes=first.bytes + second.bytes - 1)
    black_box.refused(first, "409: other bytes")
    black_box.refused(second, "415: another version")
    assert SpoolSession(second.path.parent).refused() == {0: "415: another version"}
    assert not list((first.path.parent / "refused").iterdir())


def test_kept_chunks_give_way_to_new_ones_acknowledged_first(tmp_path, lay):
    black_box = box(tmp_path)
    sent_new, sent_old, refused = lay(1), lay(100), lay(1000)
    for chunk in (sent_new, sent_old):
        black_box.acknowledged(chunk)
    black_box.refused(refused, "409: other bytes")
    assert give_way(tmp_path, 1) == sent_old.bytes
    assert kept(tmp_path, "sent") == [sent_new.key.session]
    assert give_way(tmp_path, 10**9) == sent_new.bytes + refused.bytes
    assert not list(tmp_path.glob("*/*/*/*"))
    assert black_box.acknowledged(lay())  # and goes on


def test_a_chunk_that_was_evicted_meanwhile_is_no_error(tmp_path, lay):
    chunk = lay()
    chunk.path.unlink()
    assert box(tmp_path).acknowledged(chunk)
    assert kept(tmp_path, "sent") == []

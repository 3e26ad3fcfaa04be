"""A folder stands for the trainer: what is copied there is whole, and never replaced."""

from __future__ import annotations

import hashlib

import pytest

from wm_core.contract.errors import SettingsError
from wm_core.format.chunk import check_chunk, chunk_path
from wm_core.link.robot.carrier import CHUNKS, folder_trainer


@pytest.fixture
def stick(tmp_path):
    folder = tmp_path / "media" / "wm folder"
    folder.mkdir(parents=True)
    return folder


def copies(stick):
    return {p.name: p.read_bytes() for p in stick.rglob("*.mcap")}


def test_chunks_are_copied_and_leave_the_spool(upload, lay, stick, spool_folder):
    key = lay()[0]
    lay(1, session=key.session)
    uploader = upload(stick.as_uri())
    assert uploader.drain(60.0)
    assert copies(stick).keys() == {"00000000.mcap", "00000001.mcap"}
    check_chunk(chunk_path(stick / CHUNKS, key).read_bytes(), key, max_bytes=10**6)
    assert not list(spool_folder.rglob("*.mcap"))
    assert uploader.counters()["acked"] == 2


def test_a_chunk_that_is_there_already_is_known_and_another_one_is_kept(
    upload, lay, make_chunk, stick, spool_folder, wait_until
):
    key, data, _ = lay()
    other = make_chunk(1, session=key.session, salt=1)
    lay(1, session=key.session)
    for name, content in ((key, data), (other[0], other[1])):
        path = chunk_path(stick / CHUNKS, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    uploader = upload(stick.as_uri())
    wait_until(lambda: uploader.counters()["acked_before"] == 1)
    wait_until(lambda: "other bytes" in str(uploader.counters()["last_error"]))
    assert copies(stick)["00000001.mcap"] == other[1]  # never replaced
    assert chunk_path(spool_folder, other[0]).exists()  # never given up


def test_without_the_stick_nothing_is_copied_to_where_it_would_be(
    upload, lay, stick, wait_until, tmp_path
):
    stick.rmdir()
    lay()
    uploader = upload(stick.as_uri())
    wait_until(lambda: uploader.counters()["retries"] > 1)
    assert "mount the stick" in str(uploader.counters()["last_error"])
    assert not stick.exists()
    stick.mkdir()  # it is plugged in
    assert uploader.drain(60.0)
    assert len(copies(stick)) == 1


def test_a_folder_that_refuses_keeps_the_chunk_in_the_spool(upload, lay, stick, wait_until):
    (stick / CHUNKS).write_text("a file where the folder of chunks should be")
    sha256 = lay()[2]
    uploader = upload(stick.as_uri())
    wait_until(lambda: uploader.counters()["retries"] > 1)
    assert uploader.counters()["pending_chunks"] == 1
    (stick / CHUNKS).unlink()
    assert uploader.drain(60.0)
    (copy,) = copies(stick).values()
    assert hashlib.sha256(copy).hexdigest() == sha256


@pytest.mark.parametrize("url", ["file://server/share", "file:", "file:///", "file:///a%00b"])
def test_an_address_that_is_no_folder_here_is_refused(url):
    with pytest.raises(SettingsError, match="file:///absolute/folder"):
        folder_trainer(url)


def test_other_addresses_are_no_folders():
    assert folder_trainer("https://trainer:8765") is None
    assert str(folder_trainer("file:///media/usb%20stick")) == "/media/usb stick"

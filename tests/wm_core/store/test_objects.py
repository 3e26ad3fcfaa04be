"""An object store keeps each chunk once: a folder, and a real service with the S3 API."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from wm_core.contract.errors import SettingsError, StoreError
from wm_core.format.chunk import ChunkKey
from wm_core.store.objects import object_name, open_objects


@pytest.fixture(params=["folder", "s3"])
def objects(request, tmp_path):
    if request.param == "folder":
        return open_objects(f"file://{tmp_path}/objects")
    return open_objects(f"s3://{request.getfixturevalue('bucket')}/robots/home")


def test_a_name_is_written_once_and_read_back_whole(objects):
    assert objects.get("chunks/a/b/1") is None
    assert objects.put_new("chunks/a/b/1", b"first")
    assert not objects.put_new("chunks/a/b/1", b"second")
    assert objects.get("chunks/a/b/1") == b"first"


def test_of_many_writers_exactly_one_wins(objects):
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: objects.put_new("chunks/x", b"%d" % n), range(8)))
    assert made.count(True) == 1
    assert objects.get("chunks/x") == b"%d" % made.index(True)


def test_names_and_folders_are_listed_in_order_from_any_name_on(objects):
    for session in "ab":
        for seq in (10, 2, 1):
            objects.put_new(object_name(ChunkKey("rover", session * 32, seq)), b"x")
    folder = f"chunks/rover/{'a' * 32}"
    names = [f"{folder}/{seq:08d}.mcap" for seq in (1, 2, 10)]
    assert list(objects.names(folder)) == names
    assert list(objects.names(folder, after=names[0])) == names[1:]
    assert list(objects.names("chunks/nobody")) == []
    assert objects.folders("chunks") == ["chunks/rover"]
    assert objects.folders("chunks/rover") == [f"chunks/rover/{s * 32}" for s in "ab"]


def test_a_missing_bucket_is_an_error_and_never_an_absent_object(s3_environment):
    objects = open_objects("s3://nowhere/x")
    for ask in (
        lambda: objects.put_new("a", b""),
        lambda: objects.get("a"),
        lambda: list(objects.names("a")),
        lambda: objects.folders("a"),
    ):
        with pytest.raises(StoreError, match=r"^s3://nowhere/x/.*could not be"):
            ask()


def test_a_folder_that_cannot_be_written_is_an_error_of_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="could not be written"):
        open_objects(str(tmp_path / "file")).put_new("a/b", b"")


@pytest.mark.parametrize("url", ["", "s3://", "ftp://host/x", "file://host/x", "gs://bucket"])
def test_another_kind_of_address_is_refused(url):
    with pytest.raises(SettingsError, match="s3://bucket/prefix"):
        open_objects(url)

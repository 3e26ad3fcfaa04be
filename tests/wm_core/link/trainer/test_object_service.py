"""Two services stand before one object store, and `wm store pull` brings all to a learner."""

from __future__ import annotations

import pytest

from wm_core.cli.main import main
from wm_core.format.chunk import chunk_path
from wm_core.link.robot.client import TrainerClient
from wm_core.store.ledger import LEDGER_NAME, Ledger


@pytest.fixture
def services(serve, tmp_path):
    url = f"file://{tmp_path}/objects"
    return [serve(root=tmp_path / name, objects=url) for name in ("first", "second")]


def put(service, key, data, sha256):
    client = TrainerClient(service.url)
    path = f"/v1/chunks/{key.robot}/{key.session}/{key.seq}"
    try:
        reply = client.request("PUT", path, body=data, headers={"X-Content-SHA256": sha256})
    finally:
        client.close()
    return reply.status


def test_a_robot_may_change_the_service_in_the_middle_and_nothing_is_there_twice(
    services, make_chunk, tmp_path, capsys
):
    chunks = [make_chunk(seq, session="d" * 32) for seq in range(6)]
    for key, data, sha256 in chunks:
        assert put(services[key.seq % 2], key, data, sha256) == 201
    for service in services:
        for chunk in chunks:
            assert put(service, *chunk) == 200
    pull = ["store", "pull", "--from", f"{tmp_path}/objects", "--root", str(tmp_path / "learner")]
    assert main(pull) == 0
    assert "6 new chunks" in capsys.readouterr().out
    assert main(pull) == 0
    assert "0 new chunks" in capsys.readouterr().out
    store = tmp_path / "learner" / "store"
    ledger = Ledger(store / LEDGER_NAME)
    assert sorted(row.key for row in ledger.since(0)) == [key for key, _, _ in chunks]
    ledger.close()
    for key, data, _ in chunks:
        assert chunk_path(store, key).read_bytes() == data


def test_other_bytes_are_a_conflict_whichever_service_is_asked(services, make_chunk):
    key, data, sha256 = make_chunk()
    _, other, other_sha256 = make_chunk(session=key.session, salt=1)
    assert put(services[0], key, data, sha256) == 201
    assert [put(service, key, other, other_sha256) for service in services] == [409, 409]


def test_the_status_counts_what_this_service_took(services, make_chunk):
    put(services[0], *make_chunk())
    counts = [service.application.intake.counts()["chunks"] for service in services]
    assert counts == [1, 0]


def test_an_object_store_that_is_no_address_is_one_line(tmp_path, capsys):
    assert main(["store", "pull", "--from", "ftp://x", "--root", str(tmp_path)]) == 2
    assert "s3://bucket/prefix" in capsys.readouterr().err

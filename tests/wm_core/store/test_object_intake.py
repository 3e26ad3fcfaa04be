"""Many services may stand before one object store, and a learner pulls each chunk once."""

from __future__ import annotations

import hashlib

import pytest

from wm_core.contract.errors import StoreError
from wm_core.format.chunk import chunk_path
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.store.object_intake import ObjectIntake
from wm_core.store.objects import object_name, open_objects
from wm_core.store.pull import Pull, Pulled


@pytest.fixture(params=["folder", "s3"])
def url(request, tmp_path):
    if request.param == "folder":
        return f"file://{tmp_path}/objects"
    return f"s3://{request.getfixturevalue('bucket')}/robots"


@pytest.fixture
def intake(url):
    intake = ObjectIntake(open_objects(url))
    yield intake
    intake.close()


@pytest.fixture
def local(tmp_path):
    """Make a learner's own store; returns its folder and ledger."""
    ledgers = []

    def make(name):
        ledgers.append(Ledger(tmp_path / name / LEDGER_NAME))
        return tmp_path / name, ledgers[-1]

    yield make
    for ledger in ledgers:
        ledger.close()


def kind(intake, key, data, sha256=None):
    sha256 = sha256 or hashlib.sha256(data).hexdigest()
    return intake.offer(key, data, sha256).result(60).kind


def test_services_that_know_nothing_of_each_other_store_each_chunk_once(
    url, intake, make_chunk, local
):
    other = ObjectIntake(open_objects(url))
    chunks = [make_chunk(seq, session="a" * 32) for seq in range(6)]
    answers = [service.offer(*chunk) for chunk in chunks for service in (intake, other, intake)]
    kinds = [answer.result(60).kind for answer in answers]
    assert sorted(kinds) == ["known"] * 12 + ["stored"] * 6
    assert intake.counts()["chunks"] + other.counts()["chunks"] == 6
    other.close()
    root, ledger = local("learner")
    assert Pull(open_objects(url), root, ledger).once() == Pulled(stored=6)
    for key, data, _ in chunks:
        assert chunk_path(root, key).read_bytes() == data


def test_other_bytes_under_a_stored_name_and_damaged_ones_are_refused(url, intake, make_chunk):
    key, data, sha256 = make_chunk()
    _, other, _ = make_chunk(session=key.session, salt=1)
    assert kind(intake, key, data[:-9], sha256) == "damaged"
    assert kind(intake, key, data[:-9]) == "damaged"
    assert kind(intake, key._replace(robot="someone"), data) == "damaged"
    assert kind(intake, key, data) == "stored"
    assert kind(intake, key, other) == "conflict"
    assert open_objects(url).get(object_name(key)) == data
    assert intake.usage(key.robot) == len(data)


def test_a_learner_pulls_what_is_new_whatever_the_order_of_arrival(url, intake, make_chunk, local):
    chunks = [make_chunk(seq, session="b" * 32) for seq in range(4)]
    root, ledger = local("learner")
    pull = Pull(open_objects(url), root, ledger)
    assert pull.once() == Pulled()
    for wave in ([2, 0], [3], [1]):
        for seq in wave:
            assert kind(intake, *chunks[seq]) == "stored"
        assert pull.once() == Pulled(stored=len(wave))
    assert pull.once() == Pulled()
    assert Pull(open_objects(url), root, ledger).once() == Pulled()  # after a restart too
    assert sorted(row.seq for row in ledger.since(0)) == [0, 1, 2, 3]


def test_what_someone_else_put_into_the_bucket_is_set_aside_and_stops_nothing(
    url, intake, make_chunk, local
):
    objects = open_objects(url)
    good, bad = make_chunk(1, session="c" * 32), make_chunk(2, session="c" * 32)
    objects.put_new(object_name(bad[0]), b"not a chunk")
    objects.put_new("chunks/rover/notes.txt", b"x")
    objects.put_new(f"chunks/rover/{'c' * 32}/{9**22}.mcap", b"x")
    objects.put_new(f"chunks/Ro ver/{'c' * 32}/00000001.mcap", b"x")
    assert kind(intake, *good) == "stored"
    root, ledger = local("learner")
    pull = Pull(objects, root, ledger)
    assert pull.once() == Pulled(stored=1, refused=1)
    assert pull.once() == Pulled()


def test_an_object_store_that_is_gone_is_busy_and_the_chunk_comes_again(
    s3_environment, make_chunk, local
):
    intake = ObjectIntake(open_objects("s3://nowhere"))
    verdict = intake.offer(*make_chunk()).result(60)
    assert verdict.kind == "busy"
    assert "s3://nowhere" in verdict.reason
    assert intake.backlog() == (0, 0)
    intake.close()
    with pytest.raises(StoreError, match="could not be listed"):
        Pull(open_objects("s3://nowhere"), *local("learner")).once()

"""A robot runs what its owner's keys name, and never goes back to what was said before."""

from __future__ import annotations

import hashlib
import time

import pytest

from wm_core.contract.card import Manifest, blob_of
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.releases import (
    Delivery,
    Endorsement,
    Key,
    Keyring,
    Release,
    Rollout,
    Statement,
    share_of,
)
from wm_core.contract.signing import SecretKey, seal
from wm_core.contract.trust import Trust

NOW = 1_800_000_000
DAY = 86_400


class Owner:
    """Signs as the owner, a trainer and its service do; each part can be exchanged by a test."""

    def __init__(self, clock=lambda: NOW):
        self.clock = clock
        self.owner, self.policy, self.channel = map(SecretKey.make, ("owner", "policy", "channel"))

    def manifest(self, version, key=None, **about):
        blob = blob_of("policy.onnx", b"%d" % version)
        text = Manifest(version=version, policy=blob, golden=blob, **about).model_dump_json()
        return seal("manifest", text, [key or self.policy])

    def keyring(self, number=1, *, by=None, keys=None, **more):
        policy = Key(key=self.policy.public, roles=("policy",))
        channel = Key(key=self.channel.public, roles=("channel",))
        keys = (policy, channel) if keys is None else keys
        ring = Keyring(number=number, keys=keys, **more)
        return seal("keyring", ring.model_dump_json(), [by or self.owner])

    def statement(self, serial, manifest, *, by=None, **more):
        release = Release(
            manifest=hashlib.sha256(manifest.content).hexdigest(),
            version=Manifest.parse(manifest.document).version,
        )
        values = {"issued": int(self.clock()), "channel": "main", "current": release}
        values = values | more
        values.setdefault("expires", values["issued"] + DAY)
        statement = Statement(serial=serial, **values)
        return seal("statement", statement.model_dump_json(), [by or self.channel])

    def delivery(self, serial=1, version=0, **parts):
        manifest = parts.pop("manifest", None) or self.manifest(version)
        return Delivery(
            keyring=parts.pop("keyring", None) or self.keyring(),
            statement=parts.pop("statement", None) or self.statement(serial, manifest, **parts),
            manifest=manifest,
        ).model_dump_json().encode()  # fmt: skip

    def trust(self, path=None, clock=None):
        return Trust({self.owner.public: "us"}, path, clock=clock or self.clock)


@pytest.fixture
def owner():
    return Owner()


def take(trust, text, channel="main", robot="rover"):
    return trust.take(text, channel=channel, robot=robot)


def test_what_the_owners_keys_name_is_taken(owner):
    order = take(owner.trust(), owner.delivery(serial=1, version=7))
    assert order.manifest.version == order.release.version == 7
    assert Manifest.parse(order.content) == order.manifest


def test_documents_signed_by_other_keys_are_refused(owner):
    stranger = Owner()
    manifest = owner.manifest(0)
    for delivery, word in (
        (stranger.delivery(), "keyring: expected a signature by the robot's owner"),
        (owner.delivery(keyring=owner.keyring(by=owner.policy)), "keyring"),
        (owner.delivery(manifest=owner.manifest(0, key=stranger.policy)), "manifest: expected"),
        (owner.delivery(manifest=owner.manifest(0, key=owner.channel)), "manifest: expected"),
        (owner.delivery(statement=owner.statement(1, manifest, by=owner.policy)), "statement"),
        (owner.delivery(statement=stranger.statement(1, manifest)), "statement: expected"),
    ):
        with pytest.raises(PolicyRefused, match=word):
            take(owner.trust(), delivery)


def test_an_older_statement_is_refused_also_after_a_restart(owner, tmp_path):
    old, new = owner.delivery(serial=5, version=5), owner.delivery(serial=6, version=6)
    trust = owner.trust(tmp_path / "trust.json")
    take(trust, new)
    for robot in (trust, owner.trust(tmp_path / "trust.json")):
        with pytest.raises(PolicyRefused, match="expected serial 6 or later, got 5"):
            take(robot, old)
        assert take(robot, new).manifest.version == 6


def test_a_signed_statement_may_name_a_lower_version(owner):
    trust = owner.trust()
    take(trust, owner.delivery(serial=1, version=9))
    assert take(trust, owner.delivery(serial=2, version=3)).manifest.version == 3


def test_two_statements_of_one_serial_are_refused(owner):
    trust = owner.trust()
    take(trust, owner.delivery(serial=4, version=1))
    with pytest.raises(PolicyRefused, match="two that differ have the serial 4"):
        take(trust, owner.delivery(serial=4, version=2))


def test_an_older_keyring_is_refused_and_a_taken_key_stays_taken(owner, tmp_path):
    before = owner.delivery(serial=1)
    trust = owner.trust(tmp_path / "trust.json")
    take(trust, before)
    stolen, owner.policy = owner.policy, SecretKey.make("policy")
    ring = owner.keyring(number=2)
    take(trust, owner.delivery(serial=2, version=1, keyring=ring))
    for robot in (trust, owner.trust(tmp_path / "trust.json")):
        with pytest.raises(PolicyRefused, match="expected number 2 or later, got 1"):
            take(robot, before)
        forged = owner.manifest(9, key=stolen)
        with pytest.raises(PolicyRefused, match="manifest: expected a signature by a policy key"):
            take(robot, owner.delivery(serial=3, keyring=ring, manifest=forged))
    other = owner.keyring(number=2, keys=(Key(key=stolen.public, roles=("policy",)),))
    with pytest.raises(PolicyRefused, match="two that differ"):
        take(trust, owner.delivery(serial=3, keyring=other))


def test_an_expired_statement_is_refused_and_the_freeze_is_said(owner):
    now = [NOW]
    owner.clock = lambda: now[0]
    trust = owner.trust()
    take(trust, owner.delivery(serial=1))
    assert trust.stale("main") == ""
    old = owner.delivery(serial=2, version=1)
    now[0] += 2 * DAY
    assert "no new policy is taken" in trust.stale("main")
    with pytest.raises(PolicyRefused, match="expired at"):
        take(trust, old)
    take(trust, owner.delivery(serial=3))
    assert trust.stale("main") == ""


def test_a_robot_whose_clock_stands_at_1970_keeps_to_the_latest_signed_time(owner, tmp_path):
    trust = owner.trust(tmp_path / "trust.json", clock=lambda: 0.0)
    early, late = owner.delivery(serial=1), owner.delivery(serial=2, issued=NOW + 3 * DAY)
    expired = owner.delivery(serial=3, issued=NOW)
    take(trust, early)
    take(trust, late)
    for robot in (trust, owner.trust(tmp_path / "trust.json", clock=lambda: 0.0)):
        assert robot.now_s() >= NOW + 3 * DAY
        with pytest.raises(PolicyRefused, match="expired"):
            take(robot, expired)
        with pytest.raises(PolicyRefused, match="serial"):
            take(robot, early)


def test_a_number_run_up_by_a_stolen_key_is_undone_by_taking_the_key_away(owner, tmp_path):
    trust = owner.trust(tmp_path / "trust.json")
    take(trust, owner.delivery(serial=2**53 - 1, issued=4_000_000_000))
    owner.channel = SecretKey.make("channel")
    again = owner.delivery(serial=2, version=1, keyring=owner.keyring(number=2))
    assert take(trust, again).manifest.version == 1
    assert trust.now_s() < NOW + DAY


def test_numbers_beyond_their_bounds_are_refused(owner):
    good = owner.delivery(serial=77, version=3).decode()
    for number, value in (
        ('\\"serial\\":77', '\\"serial\\":9223372036854775808'),
        ('\\"serial\\":77', '\\"serial\\":-1'),
        ('\\"issued\\":1800000000', '\\"issued\\":1e300'),
        ('\\"number\\":1', '\\"number\\":18446744073709551616'),
    ):
        assert number in good
        with pytest.raises(PolicyRefused):
            take(owner.trust(), good.replace(number, value).encode())
    with pytest.raises(PolicyRefused, match="version"):
        Manifest.parse(
            owner.manifest(3).document.replace('"version":3', '"version":9223372036854775808')
        )


def test_a_statement_that_never_expires_cannot_be_signed(owner):
    with pytest.raises(ValueError, match="must follow issued"):
        owner.statement(1, owner.manifest(0), expires=NOW + 400 * DAY)


def test_parts_of_different_answers_do_not_mix(owner):
    one, two = owner.manifest(1), owner.manifest(2)
    with pytest.raises(PolicyRefused, match="the statement names"):
        take(owner.trust(), owner.delivery(statement=owner.statement(1, one), manifest=two))
    release = Release(manifest=hashlib.sha256(one.content).hexdigest(), version=9)
    with pytest.raises(PolicyRefused, match="names version 9, got 1"):
        take(owner.trust(), owner.delivery(manifest=one, current=release))


def test_another_channels_statement_is_refused(owner):
    with pytest.raises(PolicyRefused, match="expected channel 'main', got 'canary'"):
        take(owner.trust(), owner.delivery(channel="canary"))


def test_pins_come_before_the_rollout_and_that_before_the_current_release(owner):
    releases = [Release(manifest=f"{n}" * 64, version=n) for n in range(3)]
    rollout = Rollout(release=releases[1], robots=("canary",))
    plan = Statement(
        channel="main", serial=1, issued=NOW, expires=NOW + 1, current=releases[0],
        rollout=rollout, pins={"pinned": releases[2]},
    )  # fmt: skip
    chosen = {name: plan.release_for(name).version for name in ("rover", "canary", "pinned")}
    assert chosen == {"rover": 0, "canary": 1, "pinned": 2}


def test_a_share_of_the_fleet_grows_without_changing_who_is_in_it():
    names = [f"robot-{n}" for n in range(2000)]
    places = {name: share_of(name, "0" * 64) for name in names}
    tenth = {name for name in names if places[name] < 0.1}
    half = {name for name in names if places[name] < 0.5}
    assert tenth < half
    assert 150 < len(tenth) < 250
    assert 900 < len(half) < 1100
    assert {name for name in names if share_of(name, "1" * 64) < 0.1} != tenth


def test_without_trusted_keys_nothing_is_taken_and_the_advice_is_given(owner):
    with pytest.raises(PolicyRefused, match=r"owner\.pub.*trusted_keys"):
        take(Trust({}), owner.delivery())


def test_what_an_earlier_owner_said_is_forgotten(owner, tmp_path):
    take(owner.trust(tmp_path / "trust.json"), owner.delivery(serial=100))
    buyer = Owner()
    trust = buyer.trust(tmp_path / "trust.json")
    assert trust.keyring is None
    assert take(trust, buyer.delivery(serial=1)).manifest.version == 0


def test_a_disk_that_keeps_nothing_lets_nothing_be_taken(owner, tmp_path):
    (tmp_path / "file").write_text("in the way")
    trust = owner.trust(tmp_path / "file" / "trust.json")
    with pytest.raises(OSError, match="file"):
        take(trust, owner.delivery())
    assert trust.keyring is None


def test_a_damaged_memory_is_passed_over(owner, tmp_path):
    for content in (b"", b"\xff\xfe", b"{}", b'{"keyring": 3}', b"[" * 5000):
        (tmp_path / "trust.json").write_bytes(content)
        assert take(owner.trust(tmp_path / "trust.json"), owner.delivery()) is not None


def test_a_policy_copied_by_hand_is_held_to_the_keys(owner, tmp_path):
    folder = PolicyFolder(tmp_path)
    signed = owner.manifest(3)
    trust = owner.trust()
    folder.manifest.write_text(signed.document)
    with pytest.raises(PolicyRefused, match="wm keys sign"):
        trust.check(folder)
    plain = Endorsement(signatures=signed.signatures)
    folder.endorsement.write_text(plain.model_dump_json())
    with pytest.raises(PolicyRefused, match="keyring of the owner"):
        trust.check(folder)
    whole = Endorsement(signatures=signed.signatures, keyring=owner.keyring())
    folder.endorsement.write_text(whole.model_dump_json())
    assert trust.check(folder).version == 3
    folder.manifest.write_text(signed.document.replace('"version":3', '"version":4'))
    with pytest.raises(PolicyRefused, match="does not fit its bytes"):
        trust.check(folder)


def test_a_key_that_has_expired_signs_no_more(owner):
    now = [NOW]
    keys = (
        Key(key=owner.policy.public, roles=("policy",), expires=NOW + DAY),
        Key(key=owner.channel.public, roles=("channel",)),
    )
    ring = owner.keyring(keys=keys)
    owner.clock = lambda: now[0]
    trust = owner.trust()
    assert take(trust, owner.delivery(serial=1, keyring=ring))
    now[0] += 2 * DAY
    with pytest.raises(PolicyRefused, match="a policy key"):
        take(trust, owner.delivery(serial=2, keyring=ring))


def test_an_expired_keyring_brings_nothing_new(owner):
    ring = owner.keyring(expires=NOW - 1)
    with pytest.raises(PolicyRefused, match="keyring: it expired"):
        take(owner.trust(), owner.delivery(keyring=ring))


def test_fields_of_later_releases_are_passed_over_and_later_versions_refused(owner):
    text = owner.delivery(serial=5)
    trust = owner.trust()
    assert take(trust, text[:-1] + b', "later": 1}')
    ring = seal("keyring", '{"keyring_version": 2, "number": 3, "keys": []}', [owner.owner])
    with pytest.raises(PolicyRefused, match="does not fit version 1"):
        take(trust, owner.delivery(serial=6, keyring=ring))


def test_time_goes_on_while_the_robot_runs(owner):
    trust = owner.trust(clock=lambda: 0.0)
    take(trust, owner.delivery())
    first = trust.now_s()
    time.sleep(0.01)
    assert trust.now_s() > first >= NOW

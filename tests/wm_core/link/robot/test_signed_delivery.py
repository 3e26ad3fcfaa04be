"""A robot with its owner's key follows a real trainer: releases, rotation, rollback, pins."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time

import pytest

from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.signing import read_public_keys
from wm_core.contract.trust import Trust
from wm_core.link.robot.policy_client import PolicyClient, PolicyClientSettings, Running
from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.policy_keys import PolicyKeys, make_keys, revoke, rotate
from wm_core.link.trainer.policy_repository import PolicyRepository

QUICK = {"backoff_first_s": 0.02, "backoff_most_s": 0.1, "wait_s": 5.0, "read_s": 5.0}


@pytest.fixture
def keys(tmp_path):
    make_keys(tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def signed(serve, keys):
    """A service that signs, and the function that publishes into it."""
    service = serve(policy_keys=keys)
    repository = PolicyRepository(service.application.policies)

    def publish(*versions, sign=True):
        for version in versions:
            content = b"onnx %d" % version
            about = {"keys": PolicyKeys(keys)} if sign else {}
            repository.publish(content, b"golden", version=version, **about)

    service.publish, service.channels = publish, Channels(service.application.policies)
    return service


@pytest.fixture
def robot(tmp_path, keys, closing):
    def start(url, name="rover", *, channel="main", running=lambda: None, memory=True, **settings):
        trust = Trust(
            read_public_keys(keys / "owner.pub"),
            tmp_path / f"{name}.trust.json" if memory else None,
        )
        return closing(
            PolicyClient(
                url, cache=tmp_path / name, channel=channel, robot=name, trust=trust,
                running=running, settings=PolicyClientSettings(**QUICK | settings),
            )
        )  # fmt: skip

    return start


def version(client):
    return client.counters()["version"]


def error(client):
    return str(client.counters()["last_error"])


def test_signed_versions_arrive_one_after_the_other_and_stay_signed(signed, robot, wait_until):
    client = robot(signed.url)
    for number in range(3):
        signed.publish(number)
        wait_until(lambda number=number: version(client) == number)
    assert client.counters()["refused"] in (0, client.counters()["retries"])
    folder = PolicyFolder(client.latest())
    assert client._trust.check(folder).version == 2


def test_an_unsigned_version_is_not_taken_and_the_advice_is_given(signed, robot, wait_until):
    signed.publish(0)
    client = robot(signed.url)
    wait_until(lambda: version(client) == 0)
    signed.publish(1, sign=False)
    wait_until(lambda: "wm keys sign" in error(client))
    assert version(client) == 0
    PolicyKeys(signed.settings.policy_keys).endorse_folder(
        signed.application.policies / "main" / "00000001"
    )
    wait_until(lambda: version(client) == 1)


def test_a_trainer_without_keys_is_not_followed_by_a_robot_with_keys(serve, robot, wait_until):
    service = serve()
    PolicyRepository(service.application.policies).publish(b"0", b"golden", version=0)
    client = robot(service.url)
    wait_until(lambda: "--policy-keys" in error(client))
    assert client.latest() is None


def test_a_rollback_by_the_trainer_brings_an_older_version_back(signed, robot, wait_until):
    signed.publish(0, 1)
    client = robot(signed.url)
    wait_until(lambda: version(client) == 1)
    signed.channels.roll_back("main")
    wait_until(lambda: version(client) == 0)
    assert [path.name for path in client.versions()] == ["00000000"]
    client.close()
    again = robot(signed.url)
    assert version(again) == 0  # from its disk, before it asked
    signed.channels.follow("main")
    wait_until(lambda: version(again) == 1)


def test_keys_are_rotated_and_revoked_while_a_robot_runs(signed, robot, keys, wait_until):
    signed.publish(0)
    client = robot(signed.url)
    wait_until(lambda: version(client) == 0)
    old = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    rotate(keys, "channel")
    signed.publish(1)
    wait_until(lambda: version(client) == 1)
    revoke(keys, old)
    wait_until(lambda: client.counters()["keyring"] == 4)
    assert version(client) == 1
    client.close()
    stolen = PolicyFolder(signed.application.policies / "main" / "00000000")
    assert old in [s.key for s in stolen.read_signed()[1].signatures]
    signed.channels.promote("main", 0)  # which only the revoked key has signed
    again = robot(signed.url)
    wait_until(lambda: "a policy key" in error(again))
    assert version(again) == 1
    assert not again._cache.holds(0)
    PolicyKeys(keys).endorse_folder(stolen.path)
    wait_until(lambda: version(again) == 0)


def test_what_a_revoked_key_signed_is_not_started_from_the_disk(
    signed, robot, keys, closed_url, wait_until
):
    signed.publish(0)
    client = robot(signed.url)
    wait_until(lambda: version(client) == 0)
    old = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    revoke(keys, old)
    wait_until(lambda: client.counters()["keyring"] == 3)
    client.close()
    assert robot(closed_url).latest() is None


def test_a_running_policy_whose_key_was_revoked_is_said(signed, robot, keys, wait_until):
    signed.publish(0)
    client = robot(signed.url, running=lambda: Running(0, "0" * 64))
    wait_until(lambda: version(client) == 0)
    old = PolicyKeys(keys).secret("policy").public
    rotate(keys, "policy")
    revoke(keys, old)
    wait_until(lambda: "key is not trusted any more" in client.counters()["untrusted"])
    assert version(client) == 0
    folder = signed.application.policies / "main" / "00000000"
    PolicyKeys(keys).endorse_folder(folder)
    wait_until(lambda: error(client) == "")
    rotate(keys, "channel")  # the next statement brings the new signature along
    wait_until(lambda: client.counters()["untrusted"] == "")


def test_channels_shares_and_pins_decide_per_robot(signed, robot, wait_until):
    signed.publish(0, 1, 2)
    signed.channels.promote("stable", 0)
    signed.channels.roll_out("stable", 1, 0.0, ("canary",))
    signed.channels.pin("stable", "pinned", 2)
    fleet = {name: robot(signed.url, name, channel="stable") for name in ("canary", "pinned", "x")}
    wait_until(lambda: [version(c) for c in fleet.values()] == [1, 2, 0])
    signed.channels.promote("stable", 1)
    wait_until(lambda: [version(c) for c in fleet.values()] == [1, 2, 1])
    signed.channels.pin("stable", "pinned", None)
    wait_until(lambda: [version(c) for c in fleet.values()] == [1, 1, 1])


def test_a_robot_of_a_channel_that_is_not_there_is_told(signed, robot, wait_until):
    signed.publish(0)
    client = robot(signed.url, channel="nightly")
    wait_until(lambda: "no channel 'nightly'; there are: main" in error(client))
    assert not (signed.application.policies / "nightly").exists()


def test_a_robot_that_asks_before_anything_is_published_is_told_so(signed, robot, wait_until):
    client = robot(signed.url)
    wait_until(lambda: "the trainer has published no policy yet" in error(client))
    signed.publish(0)
    wait_until(lambda: version(client) == 0)


def test_the_trainer_knows_which_robot_runs_what(signed, robot, wait_until):
    signed.publish(0)
    sha256 = hashlib.sha256(b"onnx 0").hexdigest()
    robot(signed.url, running=lambda: Running(0, sha256))
    reports = signed.application.policy_routes.running
    wait_until(lambda: "rover" in reports)
    assert reports["rover"]["sha256"] == sha256
    path = signed.application.policies / "robots.json"
    wait_until(path.exists)
    assert json.loads(path.read_bytes())["rover"]["version"] == 0


def test_the_running_and_the_pinned_version_are_never_removed(signed, robot, wait_until):
    signed.publish(0)
    client = robot(signed.url, keep=1, running=lambda: Running(0, "0" * 64))
    wait_until(lambda: version(client) == 0)
    for number in (1, 2, 3):
        signed.publish(number)
        wait_until(lambda number=number: version(client) == number)
    assert sorted(p.name for p in client._cache.home.glob("0*")) == ["00000000", "00000003"]
    client.close()
    pinned = robot(signed.url, keep=1, pin_version=0)
    assert [path.name for path in pinned.versions()] == ["00000000"]
    signed.publish(4)
    wait_until(lambda: pinned.counters()["serial"] > client.counters()["serial"])
    assert version(pinned) == 0
    assert (pinned._cache.home / "00000000").is_dir()


def test_a_pin_to_a_version_that_is_not_here_is_said(signed, robot, wait_until):
    signed.publish(0)
    client = robot(signed.url, pin_version=7)
    wait_until(lambda: client.counters()["serial"] > 0)
    assert client.latest() is None
    assert "pin_version 7" in client.problem()


def test_a_new_run_is_kept_by_arrival_not_by_number(serve, closing, tmp_path, wait_until):
    def client_of(service):
        settings = PolicyClientSettings(**QUICK, keep=3)
        return closing(PolicyClient(service.url, cache=tmp_path / "cache", settings=settings))

    for root, first in (("old", 100), ("new", 0)):
        service = serve(root=tmp_path / root)
        repository = PolicyRepository(service.application.policies)
        client = client_of(service)
        for number in range(first, first + 4):
            repository.publish(b"%d" % number, b"golden", version=number)
            wait_until(lambda n=number, c=client: version(c) == n)
        client.close()
        service.close()
    assert [path.name for path in client.versions()] == ["00000003", "00000002", "00000001"]
    assert sorted(p.name for p in (tmp_path / "cache" / "main").glob("0*")) == [
        "00000001", "00000002", "00000003",
    ]  # fmt: skip


class Attacker(http.server.BaseHTTPRequestHandler):
    """Answers what its server holds: a recorded answer, and files that never end."""

    def do_GET(self):
        server = self.server
        if self.path.startswith("/v1/policies"):
            body = server.answers[0] if len(server.answers) == 1 else server.answers.pop(0)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            return
        server.asked.append((self.path.rsplit("/", 1)[-1], self.headers.get("Range")))
        self.send_response(200)
        self.end_headers()
        try:
            while not server.ending:
                self.wfile.write(server.piece)
                self.wfile.flush()
                time.sleep(server.pause_s)
        except OSError:
            pass
        self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def attacker():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Attacker) as server:
        server.daemon_threads = True
        server.answers, server.asked, server.ending = [], [], False
        server.piece, server.pause_s = b"x" * 1000, 0.001
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.ending = True
        server.shutdown()
        thread.join()


@pytest.fixture
def delivery(signed, client_of_http):
    """Gives what the trainer answers just now."""
    return lambda: client_of_http(f"{signed.url}/v1/policies/main?serial=-1&robot=rover")


@pytest.fixture
def client_of_http():
    import urllib.request

    def get(url):
        with urllib.request.urlopen(url, timeout=30) as reply:
            return reply.read()

    return get


def test_a_recorded_answer_is_not_taken_after_a_newer_one(
    signed, robot, delivery, attacker, wait_until
):
    signed.publish(0)
    old = delivery()
    signed.publish(1)
    client = robot(signed.url)
    wait_until(lambda: version(client) == 1)
    client.close()
    attacker.answers.append(old)
    again = robot(attacker.url)
    wait_until(lambda: "serial" in error(again))
    assert version(again) == 1
    assert attacker.asked == []


def test_a_file_without_end_is_bounded_in_bytes(signed, robot, delivery, attacker, wait_until):
    signed.publish(0)
    attacker.answers.append(delivery())
    client = robot(attacker.url)
    wait_until(lambda: "more than its 6 bytes" in error(client))
    assert client.counters()["bytes_received"] == 0
    assert client.latest() is None


def test_a_file_that_trickles_is_bounded_in_time_and_does_not_hide_a_newer_release(
    signed, robot, delivery, attacker, wait_until
):
    big = bytes(10_000_000)
    repository = PolicyRepository(signed.application.policies)
    keys = PolicyKeys(signed.settings.policy_keys)
    repository.publish(big, b"golden", version=0, keys=keys)
    first = delivery()
    repository.publish(big + b"1", b"golden", version=1, keys=keys)
    attacker.answers += [first, delivery()]
    attacker.piece, attacker.pause_s = b"x", 0.01
    client = robot(attacker.url, fetch_s=0.3)
    wait_until(lambda: len({name for name, _ in attacker.asked}) == 2)
    assert "came within 0.3 s" in error(client)
    partial = client._cache.home / "partial"
    wait_until(lambda: len(list(partial.iterdir())) == 1)  # of the newer one


def test_a_large_answer_in_place_of_a_delivery_is_refused(robot, attacker, wait_until):
    attacker.answers.append(b'{"keyring": "' + b"x" * 3_000_000 + b'"}')
    client = robot(attacker.url)
    wait_until(lambda: client.counters()["refused"] > 0)
    assert len(error(client)) < 600


def test_another_robots_or_channels_answer_is_refused(
    signed, robot, delivery, attacker, wait_until
):
    signed.publish(0)
    attacker.answers.append(delivery())
    client = robot(attacker.url, channel="stable")
    wait_until(lambda: "expected channel 'stable'" in error(client))
    assert client.latest() is None


def test_file_names_of_a_manifest_are_those_of_a_policy(signed, robot, keys, wait_until):
    signed.publish(0)
    folder = signed.application.policies / "main" / "00000000"
    text = (folder / "policy.manifest.json").read_text()
    for name in ("policy.manifest.json", "../../x", "policy.manifest.sig.json", "x" * 5000):
        changed = text.replace("policy.golden.npz", name)
        (folder / "policy.manifest.json").write_text(changed)
        endorsement = PolicyKeys(keys).endorse(changed.encode())
        (folder / "policy.manifest.sig.json").write_text(endorsement.model_dump_json())
        client = robot(signed.url, memory=False)
        wait_until(lambda c=client: "name" in error(c) and c.counters()["refused"] > 0)
        assert client.latest() is None
        assert not list(client._cache.home.glob("0*"))
        client.close()

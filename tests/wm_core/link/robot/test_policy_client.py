"""New policies reach the robot whole and verified; without a trainer it keeps what it has."""

from __future__ import annotations

import hashlib
import http.server
import threading
import time

import pytest

from wm_core.contract.card import Blob, Manifest
from wm_core.contract.errors import SettingsError
from wm_core.link.robot.policy_client import PolicyClient, PolicyClientSettings
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.tokens import add_token

QUICK = {"backoff_first_s": 0.02, "backoff_most_s": 0.1, "wait_s": 5.0, "read_s": 5.0}


@pytest.fixture
def follow(tmp_path, closing):
    def start(url, *, token=None, **settings):
        settings = PolicyClientSettings(**QUICK | settings)
        cache = tmp_path / "cache"
        return closing(PolicyClient(url, cache=cache, token=token, settings=settings))

    return start


def version(client):
    return client.counters()["version"]


def test_each_version_arrives_and_the_newest_stay(serve, follow, wait_until):
    service = serve()
    repository = PolicyRepository(service.application.policies)
    client = follow(service.url, keep=2)
    assert client.latest() is None
    for number in range(4):
        repository.publish(b"onnx %d" % number, b"golden", version=number)
        wait_until(lambda number=number: version(client) == number)
        folder = client.latest()
        assert folder.name == f"{number:08d}"
        assert (folder / "policy.onnx").read_bytes() == b"onnx %d" % number
        assert (folder / "policy.golden.npz").read_bytes() == b"golden"
        manifest = Manifest.parse((folder / "policy.manifest.json").read_bytes())
        assert manifest == repository.latest()
    wait_until(lambda: len(list((folder.parent).glob("0*"))) == 2)
    assert client.counters()["received"] == 4


def test_a_robot_starts_from_its_cache_without_a_trainer(serve, follow, closed_url, wait_until):
    service = serve()
    repository = PolicyRepository(service.application.policies)
    repository.publish(b"zero", b"golden", version=0)
    first = follow(service.url)
    wait_until(lambda: version(first) == 0)
    repository.publish(b"one", b"golden", version=1)
    wait_until(lambda: version(first) == 1)
    first.close()
    offline = follow(closed_url)
    assert (offline.latest() / "policy.onnx").read_bytes() == b"one"
    offline.close()
    (offline.latest() / "policy.onnx").write_bytes(b"two")  # damaged: the one before is whole
    assert (follow(closed_url).latest() / "policy.onnx").read_bytes() == b"zero"


def test_a_new_run_replaces_versions_of_the_last_one(serve, follow, tmp_path, wait_until):
    for root, content in (("a", b"old run"), ("b", b"new run")):
        service = serve(root=tmp_path / root)
        repository = PolicyRepository(service.application.policies)
        repository.publish(content, b"golden", version=0)
        client = follow(service.url)
        wait_until(lambda client=client: client.counters()["received"] == 1)
        assert (client.latest() / "policy.onnx").read_bytes() == content
        client.close()
        service.close()


def test_delivery_goes_on_after_a_restart_of_the_trainer(serve, follow, wait_until):
    service = serve()
    port = int(service.url.rpartition(":")[2])
    repository = PolicyRepository(service.application.policies)
    client = follow(service.url)
    repository.publish(b"zero", b"golden", version=0)
    wait_until(lambda: version(client) == 0)
    service.close()
    repository.publish(b"one", b"golden", version=1)
    wait_until(lambda: client.counters()["last_error"])
    serve(port=port)
    wait_until(lambda: version(client) == 1)


def test_a_known_robot_is_let_in_and_others_keep_asking(serve, follow, tmp_path, wait_until):
    token = add_token(tmp_path / "tokens", "rover")
    service = serve(tokens=tmp_path / "tokens")
    PolicyRepository(service.application.policies).publish(b"zero", b"golden", version=0)
    stranger = follow(service.url, token="wrong")
    wait_until(lambda: "401" in str(stranger.counters()["last_error"]))
    stranger.close()
    client = follow(service.url, token=token)
    wait_until(lambda: version(client) == 0)


class Trainer(http.server.BaseHTTPRequestHandler):
    """Speaks the protocol badly, as its server's attributes say."""

    def do_GET(self):
        server = self.server
        if self.path.startswith("/v1/policies"):
            if server.manifest.policy.sha256 in self.path:
                time.sleep(0.1)
                self.send_response(204)
                self.end_headers()
                return
            self._send(200, server.manifest.model_dump_json().encode())
            return
        name = "policy" if self.path.endswith(server.manifest.policy.sha256) else "golden"
        content = server.contents[name]
        server.ranges.append(self.headers.get("Range"))
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        status = 206 if start else 200
        self.send_response(status)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        piece = server.pieces.pop(0) if server.pieces else len(content)
        self.wfile.write(content[start : start + piece])
        self.close_connection = True

    def _send(self, status, content):
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture
def bad_trainer():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Trainer) as server:
        server.contents = {"policy": bytes(range(256)) * 4000, "golden": b"golden"}
        server.ranges, server.pieces = [], []

        def blob(name):
            content = server.contents[name]
            sha256 = hashlib.sha256(content).hexdigest()
            names = {"policy": "policy.onnx", "golden": "policy.golden.npz"}
            return Blob(name=names[name], sha256=sha256, bytes=len(content))

        server.manifest = Manifest(version=0, policy=blob("policy"), golden=blob("golden"))
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_cut_download_is_resumed_where_it_ended(bad_trainer, follow, wait_until):
    bad_trainer.pieces = [300_000, 500_000]
    client = follow(bad_trainer.url)
    wait_until(lambda: version(client) == 0)
    content = bad_trainer.contents["policy"]
    assert (client.latest() / "policy.onnx").read_bytes() == content
    assert bad_trainer.ranges[:3] == [None, "bytes=300000-", "bytes=800000-"]
    assert client.counters()["resumed"] == 2
    assert client.counters()["bytes_received"] == len(content) + len(b"golden")


def test_content_that_fails_its_hash_is_fetched_anew_and_never_placed(
    bad_trainer, follow, wait_until
):
    right = bad_trainer.contents["policy"]
    bad_trainer.contents["policy"] = right[:-1] + b"!"
    client = follow(bad_trainer.url)
    wait_until(lambda: "sha256" in str(client.counters()["last_error"]))
    assert client.latest() is None
    bad_trainer.contents["policy"] = right
    wait_until(lambda: version(client) == 0)


def test_a_manifest_that_cannot_be_trusted_is_refused(bad_trainer, follow, tmp_path, wait_until):
    good = bad_trainer.manifest
    outside = good.policy.model_copy(update={"name": "../../policy.onnx"})
    large = good.policy.model_copy(update={"bytes": 1 << 40})
    other = [
        good.model_copy(update={"policy": outside}),
        good.model_copy(update={"policy": large}),
        good.model_copy(update={"channel": "other"}),
    ]
    for manifest, word in zip(other, ("file name", "at most", "channel"), strict=True):
        bad_trainer.manifest = manifest
        client = follow(bad_trainer.url)
        wait_until(lambda c=client, w=word: w in str(c.counters()["last_error"]))
        assert client.latest() is None
        client.close()
    assert bad_trainer.ranges == []


def test_close_does_not_wait_for_the_open_question(follow, check_close):
    check_close(follow, "policy-client")


def test_a_request_that_close_cuts_off_is_no_error(serve, follow, wait_until):
    service = serve()
    PolicyRepository(service.application.policies).publish(b"zero", b"golden", version=0)
    client = follow(service.url)
    wait_until(lambda: version(client) == 0)
    retries = client.counters()["retries"]
    time.sleep(0.3)  # the next request waits for news
    client.close()
    assert (client.counters()["last_error"], client.counters()["retries"]) == ("", retries)


def test_an_invalid_address_is_refused(follow):
    with pytest.raises(SettingsError, match="https://trainer"):
        follow("trainer:8765")

"""The HTTP protocol, spoken over the loopback to a real service."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

from wm_core.contract.errors import SettingsError, StoreError
from wm_core.format.chunk import METADATA, check_chunk, chunk_path
from wm_core.format.recording import write_recording
from wm_core.link.robot.client import TrainerClient
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.link.trainer.service import SERVICE_FILE, ServeSettings, Service
from wm_core.link.trainer.tokens import add_token


@pytest.fixture
def ask():
    """Sends one request on a connection of its own."""

    def send(url, method, path, *, token=None, **more):
        client = TrainerClient(url, token=token)
        try:
            return client.request(method, path, **more)
        finally:
            client.close()

    return send


@pytest.fixture
def put(ask):
    """PUTs a chunk and gives back (status, what was said)."""

    def send(service, key, data, sha256, *, token=None):
        path = f"/v1/chunks/{key.robot}/{key.session}/{key.seq}"
        headers = {"X-Content-SHA256": sha256}
        reply = ask(service.url, "PUT", path, token=token, body=data, headers=headers)
        return reply.status, json.loads(reply.body)

    return send


@pytest.fixture
def question(ask, wait_until):
    """Asks from a thread; when it returns, the service holds the question open."""
    threads = []

    def send(service, path):
        replies = queue.SimpleQueue()
        thread = threading.Thread(
            target=lambda: replies.put(ask(service.url, "GET", path, read_s=90.0))
        )
        thread.start()
        threads.append(thread)
        wait_until(lambda: service._server.server_state.tasks)
        return replies

    yield send
    for thread in threads:
        thread.join(60.0)


def test_a_chunk_is_new_once_then_known_and_other_bytes_are_a_conflict(
    serve, put, ask, make_chunk
):
    service = serve()
    key, data, sha256 = make_chunk()
    _, other, other_sha256 = make_chunk(session=key.session, salt=1)
    assert put(service, key, data, sha256) == (
        201,
        {
            "reason": "",
            "verdict": "stored",
            "sha256": sha256,
            "chunk": f"rover/{key.session}/0",
        },
    )
    assert put(service, key, data, sha256)[0] == 200
    status, said = put(service, key, other, other_sha256)
    assert (status, said["verdict"]) == (409, "conflict")
    stored = chunk_path(service.application.store, key).read_bytes()
    assert stored == data
    status = ask(service.url, "GET", "/v1/status")
    counts = json.loads(status.body)
    assert (counts["chunks"], counts["steps"], counts["quarantined"]) == (1, 3, 1)


def test_bad_chunks_are_refused_with_a_reason(serve, put, make_chunk):
    service = serve(max_chunk_bytes=50_000)
    key, data, sha256 = make_chunk()
    status, said = put(service, key, data[:-10], sha256)
    assert (status, said["verdict"]) == (400, "damaged")
    large = bytes(3_000_000)
    assert put(service, key, large, hashlib.sha256(large).hexdigest())[0] == 413
    assert put(service, key, data, "no hash")[0] == 400
    assert put(service, key._replace(session="e" * 31), data, sha256)[0] == 400
    assert put(service, key._replace(robot="Rover.7"), data, sha256)[0] == 400
    meta = check_chunk(data, key, max_bytes=len(data)).meta.model_dump_json()
    newer = write_recording(
        [],
        [],
        metadata={METADATA: {"meta": meta.replace('"version":1', '"version":7')}},
        steps_per_block=1,
    )
    status, said = put(service, key, newer, hashlib.sha256(newer).hexdigest())
    assert (status, said["verdict"]) == (415, "version")
    assert service.application.ledger.counts()["chunks"] == 0


def test_a_body_without_a_length_is_cut_at_the_bound(serve, make_chunk):
    service = serve(max_chunk_bytes=50_000)
    key, _, sha256 = make_chunk()
    connection = http.client.HTTPConnection(urlsplit(service.url).netloc)
    path = f"/v1/chunks/{key.robot}/{key.session}/0"
    pieces = (bytes(10_000) for _ in range(50))
    connection.request("PUT", path, body=pieces, headers={"X-Content-SHA256": sha256})
    assert connection.getresponse().status == 413
    connection.close()


def test_a_body_that_is_cut_leaves_nothing(serve, put, make_chunk, wait_until):
    service = serve()
    key, data, sha256 = make_chunk()
    sock = socket.create_connection(("127.0.0.1", urlsplit(service.url).port))
    head = f"PUT /v1/chunks/{key.robot}/{key.session}/0 HTTP/1.1\r\nHost: localhost\r\n"
    head += f"X-Content-SHA256: {sha256}\r\nContent-Length: {len(data)}\r\n\r\n"
    sock.sendall(head.encode() + data[:100])
    wait_until(lambda: service.application.uploads == 1)
    sock.close()
    wait_until(lambda: service.application.uploads == 0)
    assert service.application.ledger.counts()["quarantined"] == 0
    assert put(service, key, data, sha256)[0] == 201


@pytest.fixture
def stall():
    """Begins to upload a chunk and sends nothing of it; gives back the connection."""
    with contextlib.ExitStack() as stack:

        def begin(service, key, data, sha256):
            address = ("127.0.0.1", urlsplit(service.url).port)
            sock = stack.enter_context(socket.create_connection(address, timeout=60.0))
            head = f"PUT /v1/chunks/{key.robot}/{key.session}/0 HTTP/1.1\r\nHost: localhost\r\n"
            head += f"X-Content-SHA256: {sha256}\r\nContent-Length: {len(data)}\r\n\r\n"
            sock.sendall(head.encode())
            return sock

        yield begin


def test_too_many_uploads_at_once_are_asked_to_come_again(
    serve, put, stall, ask, make_chunk, wait_until
):
    service = serve(max_uploads=1)
    chunk = make_chunk()
    first = stall(service, *chunk)
    wait_until(lambda: service.application.uploads == 1)
    key, data, sha256 = chunk
    path, headers = f"/v1/chunks/{key.robot}/{key.session}/0", {"X-Content-SHA256": sha256}
    reply = ask(service.url, "PUT", path, body=data, headers=headers)
    assert (reply.status, reply.retry_after_s) == (503, 1.0)
    first.close()
    wait_until(lambda: service.application.uploads == 0)
    assert put(service, *chunk)[0] == 201


def test_an_upload_that_stalls_meets_its_deadline(serve, stall, make_chunk):
    service, chunk = serve(upload_s=0.2), make_chunk()
    assert b" 408 " in stall(service, *chunk).recv(1000)


def test_a_full_disk_is_answered_with_a_reason(serve, put, make_chunk):
    service = serve(min_free_bytes=1 << 60)
    status, said = put(service, *make_chunk())
    assert (status, said["verdict"]) == (507, "no_room")
    assert "no room" in said["reason"]


def test_a_robot_writes_only_under_its_own_name(serve, put, ask, make_chunk, tmp_path):
    tokens = tmp_path / "tokens"
    rover, other = add_token(tokens, "rover"), add_token(tokens, "other")
    assert rover not in tokens.read_text()
    service = serve(tokens=tokens)
    chunk = make_chunk(robot="rover")
    assert put(service, *chunk)[0] == 401
    assert put(service, *chunk, token="wrong")[0] == 401
    status, said = put(service, *chunk, token=other)
    assert status == 403
    assert "'rover'" in said["reason"]
    assert put(service, *chunk, token=rover)[0] == 201
    for path in ("/v1/status", "/v1/policies/main", f"/v1/blobs/{'0' * 64}"):
        assert ask(service.url, "GET", path).status == 401
        assert ask(service.url, "GET", path, token=other).status != 401
    assert ask(service.url, "GET", "/v1/health").status == 200
    late = add_token(tokens, "late")  # counts without a restart
    assert put(service, *make_chunk(robot="late"), token=late)[0] == 201


def test_without_tokens_only_this_machine_is_served(serve, put, make_chunk):
    address = _own_address()
    if address is None:
        pytest.skip("needs an address beside the loopback")
    service = serve(host="0.0.0.0", insecure=True)
    chunk = make_chunk()
    for host, status in (("127.0.0.1", 201), (address, 403)):
        service.url = f"http://{host}:{urlsplit(service.url).port}"
        assert put(service, *chunk)[0] == status


def _own_address():
    """An address of this machine that is not the loopback's."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address = sock.getsockname()[0]
    return None if address.startswith("127.") else address


def test_a_manifest_comes_when_it_is_published(serve, question):
    service = serve()
    repository = PolicyRepository(service.application.policies)
    client = TrainerClient(service.url)
    assert client.request("GET", "/v1/policies/main?wait=0").status == 204
    replies = question(service, "/v1/policies/main?wait=60")
    assert replies.empty()
    repository.publish(b"onnx", b"golden", version=0)
    reply = replies.get(timeout=50)
    assert reply.status == 200
    assert json.loads(reply.body)["version"] == 0
    assert client.request("GET", "/v1/policies/main?after=0&wait=0").status == 204
    have = repository.latest().policy.sha256
    assert client.request("GET", f"/v1/policies/main?have={have}").status == 204
    assert client.request("GET", f"/v1/policies/main?after=9&have={'0' * 64}").status == 200
    assert client.request("GET", "/v1/policies/Main!").status == 400
    assert client.request("GET", "/v1/policies/main?after=0&wait=nan").status == 204
    client.close()


def test_blobs_come_by_hash_and_in_ranges(serve):
    service = serve()
    repository = PolicyRepository(service.application.policies)
    content = bytes(range(256)) * 10
    sha256 = repository.publish(content, b"golden", version=0).policy.sha256
    client = TrainerClient(service.url)
    assert client.request("GET", f"/v1/blobs/{sha256}").body == content
    reply = client.request("GET", f"/v1/blobs/{sha256}", headers={"Range": "bytes=2000-"})
    assert (reply.status, reply.body) == (206, content[2000:])
    assert client.request("GET", f"/v1/blobs/{'0' * 64}").status == 404
    assert client.request("GET", "/v1/blobs/..%2Flatest.json").status == 404
    client.close()


def test_stray_folders_and_a_damaged_version_keep_no_robot_from_its_files(serve):
    service = serve()
    policies = service.application.policies
    sha256 = PolicyRepository(policies).publish(b"onnx", b"golden", version=0).policy.sha256
    for name in (".plans.lock", "robots.json"):
        (policies / name).touch()
    for name in (".cache", "lost+found", "@eaDir"):
        (policies / name).mkdir()
    damaged = {"a-damaged-channel": "{", "main": "no manifest"}  # the one before, the other in it
    for channel, manifest in damaged.items():
        folder = policies / channel / "00000009"
        folder.mkdir(parents=True)
        (folder / "policy.manifest.json").write_text(manifest)
    client = TrainerClient(service.url)
    reply = client.request("GET", f"/v1/blobs/{sha256}")
    assert (reply.status, reply.body) == (200, b"onnx")
    assert client.request("GET", f"/v1/blobs/{'0' * 64}").status == 404
    (policies / "main" / "00000000" / "policy.onnx").unlink()
    assert client.request("GET", f"/v1/blobs/{sha256}").status == 404
    client.close()


def test_a_service_answers_waiting_robots_when_it_ends(serve, question):
    service = serve()
    replies = question(service, "/v1/policies/main?wait=60")
    assert replies.empty()
    service.close()
    assert replies.get(timeout=50).status == 204
    assert not (service.settings.root / SERVICE_FILE).exists()
    service.close()


def test_one_root_has_one_service_and_one_address_too(serve, tmp_path):
    service = serve()
    with pytest.raises(StoreError, match="already served"):
        serve()
    with pytest.raises(StoreError, match="cannot listen"):
        Service(ServeSettings(root=tmp_path / "b", port=urlsplit(service.url).port))


def test_wm_serve_says_where_and_ends_in_order(tmp_path, ask, wait_until):
    root = tmp_path / "run"
    args = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root, "--port", "0"]
    process = subprocess.Popen(args, stdout=subprocess.PIPE, text=True)
    try:
        wait_until((root / SERVICE_FILE).exists)
        where = json.loads((root / SERVICE_FILE).read_text())
        assert where["pid"] == process.pid
        assert ask(where["url"], "GET", "/v1/health").status == 200
    finally:
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    assert where["url"] in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("wall", ["run", f"run/{SERVICE_FILE}"])
def test_wm_serve_says_in_one_line_that_its_root_cannot_be_written(tmp_path, wall):
    root = tmp_path / "run"
    if wall == "run":
        root.write_text("a file where the folder should be")
    else:
        (tmp_path / wall).mkdir(parents=True)
    args = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root, "--port", "0"]
    ended = subprocess.run(args, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 2
    assert f"cannot write to {root}" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1


def test_wm_serve_makes_a_token_and_keeps_its_hash(tmp_path):
    tokens = tmp_path / "tokens"
    args = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", tmp_path / "run"]
    args += ["--tokens", tokens, "--new-token", "rover"]
    said = subprocess.run(args, capture_output=True, text=True, check=True).stdout
    token = said.split()[-1]
    assert tokens.read_text() == f"rover {hashlib.sha256(token.encode()).hexdigest()}\n"
    assert re.fullmatch(r"[\w-]{43}", token)


def test_a_service_takes_only_chunks_of_the_spec_that_it_was_given(
    serve, spec, tmp_path, make_chunk
):
    pinned = tmp_path / "spec.json"
    pinned.write_text(spec.model_copy(update={"period_s": 0.5}).model_dump_json())
    intake = serve(spec=pinned).application.intake
    verdict = intake.offer(*make_chunk()).result(60.0)
    assert verdict.kind == "conflict"
    assert "period_s" in verdict.reason
    pinned.write_text("{}")
    with pytest.raises(SettingsError, match="wm robot spec"):
        serve(root=tmp_path / "other", spec=pinned)

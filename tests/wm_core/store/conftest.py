"""A store's folder with its ledger, and a service with the S3 API in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
import urllib.request

import pytest

from wm_core.store.ledger import LEDGER_NAME, Ledger

#: a request at a time, as if each were atomic: with threads, two writers of one name both win
SERVICE = """
import sys
from moto.moto_server import werkzeug_app as moto
from werkzeug.serving import run_simple
app = moto.DomainDispatcherApplication(moto.create_backend_app)
run_simple("127.0.0.1", int(sys.argv[1]), app, request_handler=moto.MotoRequestHandler)
"""


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


@pytest.fixture
def ledger(store):
    ledger = Ledger(store / LEDGER_NAME)
    yield ledger
    ledger.close()


@pytest.fixture(scope="module")
def s3_endpoint():
    """The address of a service with the S3 API, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SERVICE, str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(f"{url}/moto-api/", timeout=5).close()
            break
        except OSError:
            assert server.poll() is None, "the S3 service ended"
            assert time.monotonic() < deadline
            time.sleep(0.1)
    yield url
    server.kill()
    server.wait()


@pytest.fixture
def s3_environment(s3_endpoint, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    return s3_endpoint


@pytest.fixture
def bucket(s3_environment):
    """A new bucket's name."""
    name = f"bucket{time.time_ns()}"
    scope = "AWS4-HMAC-SHA256 Credential=key/20260101/us-east-1/s3/aws4_request"
    request = urllib.request.Request(
        f"{s3_environment}/{name}", method="PUT", headers={"Authorization": scope}
    )
    urllib.request.urlopen(request, timeout=30).close()
    return name

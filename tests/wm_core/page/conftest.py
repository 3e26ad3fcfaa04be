"""Real pages of real run folders, and a trainer's service that says what a test wants."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest

from tests.wm_core.page.browser import opened_browser
from wm_core.page.server import PageServer
from wm_core.page.settings import PageSettings


@pytest.fixture
def closing():
    """Calls what it is given when the test ends, the last first."""
    with contextlib.ExitStack() as stack:
        yield stack.callback


@pytest.fixture
def page(tmp_path, closing):
    """Starts pages in this process, of ``tmp_path / "run"`` unless told otherwise."""

    def start(**settings):
        defaults = {"root": tmp_path / "run", "port": 0}
        server = PageServer(PageSettings(**defaults | settings))
        thread = threading.Thread(target=server.run, name="page", daemon=True)
        thread.start()
        closing(thread.join, 60)
        closing(server.close)
        return server

    return start


@pytest.fixture
def model(leave_checkpoint, tmp_path):
    """A model in the run folder that can dream of steps of ``LEARNABLE``."""
    leave_checkpoint(tmp_path, 1)


@pytest.fixture
def get(closing):
    """A client of HTTP that follows nothing and closes itself."""
    client = httpx.Client(timeout=60)
    closing(client.close)
    return client


class Service:
    """Answers ``GET /v1/live`` with what ``robots`` holds, while it is open."""

    def __init__(self) -> None:
        self.robots: dict = {}
        self.status, self.asked = 200, 0
        self._server = None
        self.port = 0
        self.open()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def open(self) -> None:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                service.asked += 1
                body = json.dumps({"robots": service.robots}).encode()
                self.send_response(service.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


@pytest.fixture
def service(closing):
    """A service that tests tell what to say."""
    found = Service()
    closing(found.close)
    return found


@pytest.fixture
def listen():
    """Gives the page's elements once they are as a test wants them."""
    return _listen


def _listen(url, wanted, timeout_s=60.0, **headers):
    shown: dict = {}
    end_s = time.monotonic() + timeout_s
    with (
        httpx.Client(timeout=60, headers=headers) as client,
        client.stream("GET", f"{url}events") as answer,
    ):
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            if line.startswith("data: "):
                said = json.loads(line.removeprefix("data: "))
                shown |= said.get("html", {}) | said.get("pictures", {})
                if wanted(shown):
                    return shown
                assert time.monotonic() < end_s, shown
    raise AssertionError("the stream has ended")


@pytest.fixture(scope="module")
def open_browser():
    with opened_browser() as found:
        yield found


@pytest.fixture
def browser(open_browser):
    """A browser without a window, which has asked for nothing yet and complained of nothing."""
    open_browser.complaints.clear()
    open_browser.requests.clear()
    return open_browser

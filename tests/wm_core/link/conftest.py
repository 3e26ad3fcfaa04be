"""A real service on a free port of the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from wm_core.link.trainer.service import ServeSettings, Service


@pytest.fixture
def closing():
    """Hands back what it is given, and closes it when the test ends."""
    with contextlib.ExitStack() as stack:
        yield lambda opened: stack.enter_context(contextlib.closing(opened))


@pytest.fixture
def serve(tmp_path, closing):
    """Starts services in this process, on ``tmp_path / "trainer"`` unless told otherwise."""

    def start(**settings):
        defaults = {"root": tmp_path / "trainer", "port": 0, "min_free_bytes": 0}
        return closing(Service(ServeSettings(**defaults | settings)).start())

    return start


@pytest.fixture
def silent():
    """A trainer that takes connections and answers none: its address and its socket."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield f"http://127.0.0.1:{sock.getsockname()[1]}", sock


@pytest.fixture
def check_close(silent):
    """Checks that a worker's thread ends though its request is open, and may be closed twice."""

    def check(start, name):
        url, trainer = silent
        worker = start(url, read_s=3600.0)
        with trainer.accept()[0]:
            worker.close(timeout_s=60.0)
            worker.close()
            assert not [thread for thread in threading.enumerate() if thread.name == name]

    return check


@pytest.fixture
def closed_url():
    """Address of a port on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return f"http://127.0.0.1:{sock.getsockname()[1]}"

"""A real service on a free port of the loopback."""

from __future__ import annotations

import contextlib

import pytest

from wm_core.link.trainer.service import ServeSettings, Service


@pytest.fixture
def serve(tmp_path):
    """Starts services in this process, on ``tmp_path / "trainer"`` unless told otherwise."""
    with contextlib.ExitStack() as stack:

        def start(**settings):
            defaults = {"root": tmp_path / "trainer", "port": 0, "min_free_bytes": 0}
            service = Service(ServeSettings(**defaults | settings)).start()
            stack.callback(service.close)
            return service

        yield start

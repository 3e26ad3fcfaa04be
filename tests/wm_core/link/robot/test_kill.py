"""Spool, uploader and service together, while the service is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys

import pytest

from wm_core.link.audit import audit
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.upload_settings import UploaderSettings
from wm_core.link.robot.uploader import Uploader
from wm_core.store.ledger import LEDGER_NAME, Ledger

pytestmark = pytest.mark.long


def test_a_killed_service_loses_no_chunk_and_doubles_none(tmp_path, spec, make_step, wait_until):
    root, spool_folder, port = tmp_path / "run", tmp_path / "spool", _free_port()
    args = [sys.executable, "-m", "wm_core.cli.main", "serve", "--root", root]
    args += ["--port", str(port), "--min-free-bytes", "0"]
    settings = SpoolSettings(seal_steps=5)
    spool = Spool(spool_folder, robot="rover", task="", spec=spec, settings=settings)
    quick = UploaderSettings(backoff_first_s=0.01, backoff_most_s=0.05, bytes_per_s=200_000)
    uploader = Uploader(spool_folder, url=f"http://127.0.0.1:{port}", settings=quick)
    for number in range(300):
        assert spool.put(make_step(number))
    process = subprocess.Popen(args, stdout=subprocess.DEVNULL)
    try:
        for acked in (10, 25):  # each time in the middle of an upload, or between two
            wait_until(lambda acked=acked: uploader.counters()["acked"] >= acked)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process = subprocess.Popen(args, stdout=subprocess.DEVNULL)
        spool.close()
        assert uploader.drain(120.0)
    finally:
        uploader.close()
        spool.close()
        process.kill()
        process.wait()
    book = audit(root / "store", [spool_folder])
    assert (book.chunks_sent, book.chunks_acked, book.chunks_lost) == (60, 60, 0)
    assert book.steps_stored == 300
    ledger = Ledger(root / "store" / LEDGER_NAME)
    assert sorted(row.seq for row in ledger.since(0)) == list(range(60))
    assert ledger.counts()["quarantined"] == 0
    ledger.close()


def _free_port():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return sock.getsockname()[1]

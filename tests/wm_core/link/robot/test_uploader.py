"""What is sealed reaches the trainer once, through every kind of outage."""

from __future__ import annotations

import hashlib
import http.server
import itertools
import json
import os
import threading
import time
from urllib.parse import urlsplit

import pytest

from wm_core.contract.files import write_durably
from wm_core.format.chunk import chunk_path
from wm_core.link.audit import audit
from wm_core.link.robot.client import BandwidthCap, TrainerClient
from wm_core.link.robot.journal import REFUSED, SENT, SpoolSession
from wm_core.link.robot.spool import Spool, SpoolSettings
from wm_core.link.robot.worker import Backoff
from wm_core.link.trainer.tokens import add_token
from wm_core.store.ingest import ingest
from wm_core.store.ledger import LEDGER_NAME, Ledger


def test_sealed_chunks_arrive_and_leave_the_spool(serve, upload, lay, spool_folder):
    service = serve()
    session = lay()[0].session
    for seq in range(1, 5):
        lay(seq, session=session)
    uploader = upload(service.url, connections=1)
    assert uploader.drain(60.0)
    rows = service.application.ledger.since(0)
    assert [row.seq for row in rows] == [0, 1, 2, 3, 4]  # oldest first
    assert uploader.counters()["acked"] == 5
    assert not list(spool_folder.rglob("*.mcap"))


def test_a_spool_fills_the_store_without_a_loss(
    serve, upload, spool_folder, spec, make_step, tmp_path
):
    service = serve()
    settings = SpoolSettings(seal_steps=4)
    spool = Spool(spool_folder, robot="rover", task="", spec=spec, settings=settings)
    uploader = upload(service.url)
    for number in range(100):
        spool.put(make_step(number))
        time.sleep(0.001)
    spool.close()
    assert uploader.drain(60.0)
    book = audit(service.application.store, [spool_folder])
    assert (book.chunks_sent, book.chunks_acked, book.chunks_lost) == (25, 25, 0)
    assert book.steps_stored == 100
    (session,) = book.sessions
    assert session.ended


def test_without_a_trainer_the_spool_grows_to_its_bound_and_counts(
    upload, spool_folder, spec, make_step, closed_url, tmp_path, wait_until
):
    bound = 20_000
    settings = SpoolSettings(seal_steps=4, max_bytes=bound)
    spool = Spool(spool_folder, robot="rover", task="", spec=spec, settings=settings)
    uploader = upload(closed_url)
    for number in range(200):
        spool.put(make_step(number))
    assert spool.flush(60.0)
    size = sum(p.stat().st_size for p in spool_folder.rglob("*.mcap"))
    assert bound / 2 < size <= bound
    counts = spool.counters()
    assert counts["dropped_spool_full"] + 4 * len(list(spool_folder.rglob("*.mcap"))) == 200
    assert uploader.counters()["acked"] == 0
    wait_until(lambda: "refused" in str(uploader.counters()["last_error"]))
    spool.close()
    book = audit(tmp_path / "store", [spool_folder])
    (session,) = book.sessions
    assert session.sent == 50 == len(session.pending) + len(session.lost)
    assert session.lost == tuple(session.dropped)
    assert session.steps_dropped == {"spool_full": counts["dropped_spool_full"]}


def test_uploads_go_on_after_the_trainer_comes_back(serve, upload, lay, closed_url, wait_until):
    lay()
    uploader = upload(closed_url)
    wait_until(lambda: uploader.counters()["retries"] > 2)
    assert uploader.counters()["pending_chunks"] == 1
    assert float(uploader.counters()["oldest_age_s"]) > 0
    service = serve(port=urlsplit(closed_url).port)
    assert uploader.drain(60.0)
    wait_until(lambda: uploader.counters()["acked"] == 1)
    assert uploader.counters()["last_error"] == ""
    service.close()  # a restart between two chunks
    lay()
    wait_until(lambda: uploader.counters()["last_error"])
    service = serve(port=urlsplit(closed_url).port)
    assert uploader.drain(60.0)
    assert service.application.ledger.counts()["chunks"] == 2


def test_a_chunk_that_the_trainer_already_has_is_acknowledged_again(
    serve, upload, lay, wait_until
):
    service = serve()
    chunk = lay()
    ingest(service.application.store, service.application.ledger, *chunk)
    uploader = upload(service.url)
    assert uploader.drain(60.0)
    wait_until(lambda: uploader.counters()["acked_before"] == 1)


def test_a_refused_chunk_is_quarantined_and_the_next_one_is_sent(
    serve, upload, lay, make_chunk, spool_folder, wait_until
):
    service = serve(max_chunk_bytes=20_000)
    session = lay()[0].session
    rival = make_chunk(1, session=session, salt=1)
    ingest(service.application.store, service.application.ledger, *rival)
    conflict = lay(1, session=session)[0]
    large = lay(2, session=session, steps=200)[0]
    damaged = conflict._replace(seq=3)
    write_durably(chunk_path(spool_folder, damaged), b"no chunk")
    last = lay(4, session=session)[0]
    uploader = upload(service.url)
    assert uploader.drain(60.0)
    wait_until(lambda: uploader.counters()["acked"] == 2)
    reasons = SpoolSession(chunk_path(spool_folder, last).parent).refused()
    assert [(seq, why[:3]) for seq, why in sorted(reasons.items())] == [
        (1, "409"),
        (2, "413"),
        (3, "400"),
    ]
    assert chunk_path(spool_folder, large).with_name(REFUSED).is_dir()
    assert uploader.counters()["refused"] == 3
    (book,) = audit(service.application.store, [spool_folder]).sessions
    assert (book.sent, book.lost) == (5, (1, 2, 3))  # number 1 is stored, with other bytes
    assert set(book.refused) == {1, 2, 3}


def test_a_wrong_token_keeps_everything(serve, upload, lay, spool_folder, tmp_path, wait_until):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens)
    lay()
    uploader = upload(service.url, token="wrong")
    wait_until(lambda: uploader.counters()["denied"] > 0)
    assert "401" in str(uploader.counters()["last_error"])
    assert len(list(spool_folder.rglob("*.mcap"))) == 1
    uploader.close()
    assert upload(service.url, token=token).drain(60.0)


def test_experience_travels_by_tls_with_a_token_and_a_certificate(
    serve, upload, lay, authority, tmp_path, wait_until
):
    token = add_token(tmp_path / "tokens", "rover")
    service = serve(
        tokens=tmp_path / "tokens",
        tls_cert=authority.service,
        tls_client_ca=authority.ca_file,
    )
    for _ in range(5):
        lay()
    access = {"ca_file": authority.ca_file}
    bare = upload(service.url, token=token, access=access)
    wait_until(lambda: bare.counters()["retries"] > 1)
    bare.close()
    access["client_certificate"] = str(authority.robot("rover"))
    uploader = upload(service.url, token=token, access=access)
    assert uploader.drain(60.0)
    assert service.application.ledger.counts()["chunks"] == 5
    assert (bare.counters()["acked"], uploader.counters()["retries"]) == (0, 0)


def test_a_denied_chunk_of_another_robot_does_not_delay_the_own_ones(
    serve, upload, lay, tmp_path, wait_until
):
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "rover")
    service = serve(tokens=tokens)
    foreign = lay(robot="arm")[0]
    own = lay(robot="rover")[0]
    uploader = upload(service.url, token=token)
    wait_until(lambda: uploader.counters()["acked"] == 1)
    assert service.application.ledger.find(own)
    assert chunk_path(tmp_path / "spool", foreign).exists()
    assert uploader.counters()["denied"] >= 1


def test_a_chunk_that_cannot_be_read_lets_the_others_pass(
    serve, upload, lay, spool_folder, wait_until
):
    """As of another user: root reads everything, so folders stand here where files should."""
    service = serve()
    first = lay()[0]
    unreadable = [chunk_path(spool_folder, lay()[0]) for _ in range(5)]
    for path in unreadable:
        path.unlink()
        path.mkdir()
    last = lay()[0]
    uploader = upload(service.url, backoff_most_s=3600.0)
    wait_until(lambda: uploader.counters()["acked"] == 2)
    wait_until(lambda: uploader.counters()["unreadable"] == 5)
    assert {row.session for row in service.application.ledger.since(0)} == {
        first.session,
        last.session,
    }
    assert not uploader.drain(5.0)  # which does not wait for what cannot go
    assert all(path.exists() for path in unreadable)


def test_pipes_and_links_in_the_place_of_chunks_are_not_read(
    serve, upload, lay, spool_folder, tmp_path, wait_until, caplog
):
    service, secret = serve(), tmp_path / "secret"
    secret.write_text("not for the trainer")
    pipe, link = (chunk_path(spool_folder, lay()[0]) for _ in range(2))
    for path in (pipe, link):
        path.unlink()
    os.mkfifo(pipe)
    link.symlink_to(secret)
    good = lay()[0]
    uploader = upload(service.url, backoff_most_s=3600.0, connections=1)
    wait_until(lambda: uploader.counters()["acked"] == 1)
    wait_until(lambda: uploader.counters()["unreadable"] == 2)
    assert service.application.ledger.find(good)
    assert "see who owns it" in caplog.text  # the last error may be over by now


def test_a_connection_whose_peer_is_gone_without_a_word_is_left_for_a_new_one(
    scripted, upload, lay, wait_until
):
    """As of a trainer whose power failed: nothing on the old connection is answered any more."""
    heard = []

    def handle(sock):
        file, number = sock.makefile("rb"), len(heard)
        heard.append(number)
        while True:
            length = 0
            while (line := file.readline()) not in (b"\r\n", b""):
                if line.lower().startswith(b"content-length"):
                    length = int(line.split(b":")[1])
            if not line:
                return
            body = file.read(length)
            if number == 0 and heard != [0]:
                continue
            said = {"verdict": "stored", "sha256": hashlib.sha256(body).hexdigest()}
            content = json.dumps(said).encode()
            sock.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n" % len(content))
            sock.sendall(content)
            if number == 0:
                heard.append("the power fails")

    lay()
    uploader = upload(scripted(handle).url, connections=1, read_s=0.5)
    wait_until(lambda: uploader.counters()["acked"] == 1)
    lay()
    assert uploader.drain(60.0)
    wait_until(lambda: uploader.counters()["acked"] == 2)
    assert heard == [0, "the power fails", 2]


def test_threads_that_wait_for_another_one_to_try_do_not_spin(upload, lay, silent, wait_until):
    for _ in range(8):
        lay()
    uploader = upload(silent[0], connections=4, read_s=1.0)
    wait_until(lambda: uploader.counters()["retries"] >= 4)
    rests = []
    rest = uploader._way.rest
    uploader._way.rest = lambda seconds: (rests.append(seconds), rest(seconds))
    before = uploader.counters()["retries"]
    wait_until(lambda: uploader.counters()["retries"] > before + 1)
    assert min(rests, default=1.0) >= 0.005
    assert len(rests) < 300


def test_closing_is_soon_over_though_every_connection_waits(upload, lay, silent):
    for _ in range(8):
        lay()
    uploader = upload(silent[0], connections=4, read_s=3600.0)
    taken = [silent[1].accept()[0] for _ in range(4)]
    uploader.close(timeout_s=60.0)
    for sock in taken:
        sock.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("uploader")]


def test_several_connections_send_each_chunk_once(serve, upload, lay):
    service = serve()
    session = lay()[0].session
    for seq in range(1, 40):
        lay(seq, session=session)
    uploader = upload(service.url, connections=4)
    assert uploader.drain(60.0)
    assert sorted(row.seq for row in service.application.ledger.since(0)) == list(range(40))
    counts = uploader.counters()
    assert (counts["acked"], counts["acked_before"], counts["retries"]) == (40, 0, 0)


def test_the_newest_goes_first_where_that_is_set(answering, upload, lay, wait_until):
    session = lay()[0].session
    for seq in range(1, 5):
        lay(seq, session=session)
    server = answering(lambda request: (507,))  # so that the order can be read from what was tried
    uploader = upload(server.url, order="newest", connections=1)
    wait_until(lambda: len(server.requests) >= 2)
    uploader.close()
    assert server.requests[0].path.endswith("/4")


def test_a_reply_without_the_chunks_hash_is_no_acknowledgement(
    upload, lay, spool_folder, wait_until
):
    lay()

    class Portal(http.server.BaseHTTPRequestHandler):
        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<html>please log in</html>")

        def log_message(self, *args):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        uploader = upload(f"http://127.0.0.1:{server.server_port}")
        wait_until(lambda: uploader.counters()["retries"] > 0)
        uploader.close()
        server.shutdown()
    assert len(list(spool_folder.rglob("*.mcap"))) == 1
    assert uploader.counters()["acked"] == 0


def test_a_trainer_that_falls_silent_meets_the_deadline(upload, lay, silent, wait_until):
    lay()
    uploader = upload(silent[0], read_s=0.2)
    wait_until(lambda: uploader.counters()["retries"] > 1)
    assert "timed out" in str(uploader.counters()["last_error"])


def test_close_cuts_a_request_short(upload, lay, check_close):
    lay()
    check_close(upload, "uploader")


def test_acknowledged_chunks_can_stay_as_a_black_box(serve, upload, lay, spool_folder, wait_until):
    service = serve()
    before, _, _ = lay(steps=9)  # of an earlier session: the first to go
    key, data, _ = lay()
    lay(1, session=key.session)
    _, last_data, _ = lay(2, session=key.session)
    bound = len(data) + len(last_data) - 1
    assert upload(service.url, keep_bytes=bound).drain(60.0)
    sent = chunk_path(spool_folder, key).parent / SENT
    wait_until(lambda: [p.name for p in sent.iterdir()] == ["00000002.mcap"])
    assert list((chunk_path(spool_folder, before).parent / SENT).iterdir()) == []


def test_the_bandwidth_cap_spreads_bytes_over_time():
    cap = BandwidthCap(1000.0)
    assert cap.wait_s(500, now_s=10.0) == 0.0
    assert cap.wait_s(500, now_s=10.0) == pytest.approx(0.5)  # as long as the first 500 take
    assert cap.wait_s(100, now_s=10.5) == pytest.approx(0.5)
    assert cap.wait_s(100, now_s=99.0) == 0.0  # a pause saves nothing up for later
    assert cap.wait_s(100, now_s=99.0) == pytest.approx(0.1)


def test_a_capped_body_arrives_whole(serve, make_chunk):
    service = serve(max_chunk_bytes=1_000_000)
    client = TrainerClient(service.url, cap=BandwidthCap(1_000_000))
    body = bytes(300_000)
    key = make_chunk()[0]
    path = f"/v1/chunks/{key.robot}/{key.session}/0"
    reply = client.request("PUT", path, body=body, headers={"X-Content-SHA256": "0" * 64})
    assert json.loads(reply.body)["verdict"] == "damaged"
    client.close()


def test_waits_grow_to_their_bound_with_jitter():
    backoff = Backoff(1.0, 8.0)
    waits = list(itertools.islice(iter(backoff.next_s, None), 50))
    for wait_s, full_s in zip(waits, [1, 2, 4, *[8] * 47], strict=True):
        assert full_s / 2 <= wait_s <= full_s
    assert len(set(waits)) == 50
    backoff.reset()
    assert backoff.next_s() <= 1.0
    assert backoff.next_s(at_least_s=60.0) == 60.0


def test_the_audit_verifies_the_bytes_of_each_chunk(serve, upload, lay, spool_folder):
    service = serve()
    store = service.application.store
    session = lay()[0].session
    changed, gone = lay(1, session=session)[0], lay(2, session=session)[0]
    assert upload(service.url).drain(60.0)
    assert audit(store, [spool_folder]).chunks_lost == 0
    chunk_path(store, changed).write_bytes(b"bit rot")
    chunk_path(store, gone).unlink()
    (book,) = audit(store, [spool_folder], session=session).sessions
    assert (book.acked, book.lost, book.steps_stored) == ((0,), (1, 2), 3)
    assert set(book.damaged) == {1, 2}
    assert audit(store, [spool_folder], session="0" * 32).chunks_sent == 0


def test_a_chunk_that_the_store_evicted_is_not_lost(tmp_path, make_chunk):
    store = tmp_path / "store"
    ledger = Ledger(store / LEDGER_NAME)
    session = make_chunk()[0].session
    for seq in range(3):
        chunk = make_chunk(seq, session=session)
        ingest(store, ledger, *chunk)
        if seq == 0:
            chunk_path(store, chunk[0]).unlink()
            ledger.mark_pruned(ledger.counts()["arrival"])
    ledger.close()
    (book,) = audit(store).sessions
    assert (book.pruned, book.acked, book.lost) == ((0,), (1, 2), ())
    assert (book.steps_stored, book.steps_pruned) == (6, 3)

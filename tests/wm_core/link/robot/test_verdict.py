"""Only the trainer's own words decide what becomes of a chunk."""

from __future__ import annotations

import hashlib
import json

import pytest

from wm_core.format.chunk import ChunkKey, chunk_path
from wm_core.link.robot.client import Reply
from wm_core.link.robot.journal import REFUSED
from wm_core.link.robot.verdict import NOT_THE_TRAINER, first_words, read_answer

KEY, SHA256 = ChunkKey("rover", "0" * 32, 7), "a" * 64
NAME = f"rover/{'0' * 32}/7"


def read(status, body, **headers):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_answer(Reply(status, headers, content), KEY, SHA256)


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (201, "stored"), (200, "known"), (400, "damaged"), (409, "conflict"), (413, "too_large"),
        (415, "version"), (401, "denied"), (403, "denied"), (408, "slow"), (429, "quota"),
        (503, "busy"), (503, "draining"), (507, "no_room"), (500, "failed"),
    ],
)  # fmt: skip
def test_the_trainers_verdicts_are_told_by_the_hash_or_the_key(status, verdict):
    said = {"verdict": verdict, "reason": "because"}
    answer = read(status, {**said, "sha256": SHA256}, WM_Verdict=verdict)
    assert (answer.verdict, answer.words) == (verdict, f"{status} {verdict}: because")
    assert read(status, {**said, "sha256": SHA256}).verdict == verdict  # of an older trainer
    by_key = read(status, {**said, "chunk": NAME}).verdict
    assert by_key == (NOT_THE_TRAINER if status < 300 else verdict)  # which proves no bytes


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        (200, {"verdict": "known", "sha256": "b" * 64}, {}),
        (201, {"verdict": "stored", "chunk": NAME}, {}),
        (201, {"verdict": "stored"}, {}),
        (200, {"verdict": "stored", "sha256": SHA256}, {}),
        (502, {"verdict": "stored", "sha256": SHA256}, {}),
        (200, {"verdict": "conflict", "sha256": SHA256}, {}),
        (409, {"verdict": "conflict", "chunk": NAME[:-1] + "8"}, {}),
        (409, {"verdict": "conflict", "sha256": SHA256}, {"WM_Verdict": "busy"}),
        (413, {"verdict": ["too_large"], "sha256": SHA256}, {}),
        (413, {"verdict": "never", "sha256": SHA256}, {}),
        (413, {"error": "too large", "sha256": SHA256}, {}),
        (413, [SHA256], {}),
        (413, b"[" * 10_000, {}),
        (413, {"verdict": "too_large", "sha256": SHA256, "reason": "a" * 20_000}, {}),
        (413, b"", {}),
        (413, b"\xff\xfe\x00", {}),
        (302, b"", {"Location": "http://portal/login"}),
    ],
)
def test_whatever_else_is_said_is_not_the_trainers(status, body, headers):
    answer = read(status, body, **headers)
    assert answer.verdict == NOT_THE_TRAINER
    assert answer.words.startswith(f"{status}, not an answer of the trainer: ")
    assert answer.words.isprintable()


def test_a_page_is_repeated_in_its_first_words():
    page = b"<html><head><title>413 Request\tEntity\r\n Too Large</title><style>p {}</style>"
    assert first_words(page) == "413 Request Entity Too Large"
    assert first_words(b"\x1b[2J\x07 hello \xff") == "[2J hello \N{REPLACEMENT CHARACTER}"
    assert len(first_words(b"word " * 10_000)) <= 100
    assert first_words(b"<" * 1_000_000 + b"<script" * 100_000)


# ------------------------------------------------------------------ the uploader before them

HTML = b"<html><title>Words of the page</title></html>"


@pytest.mark.parametrize(
    ("status", "page"),
    [
        (200, HTML), (200, b""), (201, b'{"verdict": "stored", "sha256": "0"}'), (302, b""),
        (400, HTML), (401, HTML), (403, HTML), (404, HTML), (407, HTML), (409, HTML),
        (413, HTML), (415, HTML), (429, HTML), (500, HTML), (502, HTML), (504, b""),
    ],
)  # fmt: skip
def test_no_page_of_a_proxy_costs_a_chunk_and_both_go_once_it_is_mended(
    answering, upload, lay, spool_folder, wait_until, status, page
):
    keys = [lay()[0], lay()[0]]
    mended = []

    def answer(request):
        if not mended:
            return status, page, {"Location": "http://portal.invalid/"}
        said = {"verdict": "stored", "sha256": hashlib.sha256(request.body).hexdigest()}
        return 201, json.dumps(said).encode()

    uploader = upload(answering(answer).url, stuck_s=0.2)
    wait_until(lambda: uploader.counters()["not_the_trainer"] >= 4)
    counts = uploader.counters()
    assert str(counts["last_error"]).startswith(f"{status}, not an answer of the trainer")
    if page == HTML:
        assert "Words of the page" in str(counts["last_error"])
    assert (counts["acked"], counts["refused"], counts["pending_chunks"]) == (0, 0, 2)
    assert all(chunk_path(spool_folder, key).exists() for key in keys)
    mended.append(True)
    assert uploader.drain(60.0)
    assert not list(spool_folder.rglob(REFUSED))


def test_a_limit_of_a_proxy_keeps_the_large_chunk_and_lets_the_others_pass(
    answering, upload, lay, spool_folder, wait_until
):
    large = lay(steps=200)
    small = [lay()[0] for _ in range(8)]
    limit = [20_000]

    def answer(request):
        if len(request.body) > limit[0]:
            return 413, b"<html><title>413 Request Entity Too Large</title>nginx"
        said = {"verdict": "stored", "sha256": hashlib.sha256(request.body).hexdigest()}
        return 201, json.dumps(said).encode()

    uploader = upload(answering(answer).url, stuck_s=0.2)
    wait_until(lambda: uploader.counters()["acked"] == len(small))
    assert chunk_path(spool_folder, large[0]).read_bytes() == large[1]
    wait_until(lambda: uploader.counters()["stuck_chunks"] == 1)  # after three failures
    assert not uploader.drain(0.0)
    limit[0] = 1 << 30
    assert uploader.drain(60.0)
    wait_until(lambda: uploader.counters()["stuck_chunks"] == 0)

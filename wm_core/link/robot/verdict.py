"""Tells the trainer's own verdict on a chunk from whatever else may answer on the way.

Proxies, captive portals and other services answer with any status and any page.  A verdict counts
only where the answer names one and repeats the chunk's hash, or its key where the trainer read no
body; everything else is a reason to try again later, and never one to set a chunk aside.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from wm_core.contract.files import json_object
from wm_core.format.chunk import ChunkKey
from wm_core.link.robot.client import Reply

STORED, KNOWN = "stored", "known"
NOT_THE_TRAINER = "not_the_trainer"
REFUSED = ("conflict", "too_large", "version")  #: after which no later attempt can succeed
DAMAGED = "damaged"  #: perhaps on the way: tried a few times before it counts as refused
DENIED = "denied"
NO_ROOM_LEFT, FAILED = "no_room", "failed"
LATER = ("busy", "draining", NO_ROOM_LEFT, "quota")  #: the trainer's own state, not the chunk's
_ALL = (STORED, KNOWN, *REFUSED, DAMAGED, DENIED, *LATER, "slow", FAILED)
_ACKNOWLEDGED = {STORED: (201,), KNOWN: (200,)}
_MAX_ANSWER_BYTES = (
    1 << 14
)  #: what is longer is no answer, and parsing it would hold the interpreter
_READ_BYTES = 2000  #: of a page, in search of words
_MAX_WORDS = 100  # characters of a foreign page that are repeated


class Answer(NamedTuple):
    """Holds what an answer says of a chunk."""

    verdict: str  #: the trainer's, or ``NOT_THE_TRAINER``
    words: str  #: for people: the status, and the reason or the first words of the page
    wait_s: float = 0.0  #: seconds that the other side asks to wait
    status: int = 0


def read_answer(reply: Reply, key: ChunkKey, sha256: str) -> Answer:
    """Read what a reply says of the chunk ``key`` whose bytes have the hash ``sha256``."""
    said = json_object(reply.body) if len(reply.body) <= _MAX_ANSWER_BYTES else {}
    wait_s = reply.retry_after_s
    verdict = said.get("verdict")
    name = f"{key.robot}/{key.session}/{key.seq}"
    is_ours = said.get("sha256") == sha256 or (
        said.get("chunk") == name and verdict not in _ACKNOWLEDGED
    )
    is_known = isinstance(verdict, str) and verdict in _ALL
    repeated = reply.headers.get("WM-Verdict", verdict)  # which older trainers do not send
    fits = reply.status in _ACKNOWLEDGED.get(str(verdict), range(400, 600))
    if is_known and is_ours and fits and repeated == verdict:
        words = f"{reply.status} {verdict}: {printable(str(said.get('reason', '')), 300)}"
        return Answer(str(verdict), words, wait_s, reply.status)
    page = first_words(reply.body) or printable(reply.headers.get("Location", ""), _MAX_WORDS)
    words = f"{reply.status}, not an answer of the trainer: {page or 'an empty page'}"
    return Answer(NOT_THE_TRAINER, words, wait_s, reply.status)


def first_words(page: bytes) -> str:
    """Give the first words of a page that people may read, without its tags."""
    text = page[:_READ_BYTES].decode("utf-8", errors="replace")
    text = re.sub(r"(?is)<(script|style)\b.{0,1000}?</\1>", " ", text)
    return printable(re.sub(r"<[^<>]{0,200}>", " ", text), _MAX_WORDS)


def printable(text: str, most: int) -> str:
    """Give ``text`` on one line, without control characters, cut after ``most``."""
    visible = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(visible.split())[:most]

"""Names every decoder that reads what a network or a file brings, and what it may answer."""

from __future__ import annotations

import hashlib
import json
import random
import sys
import tarfile
import tempfile
import uuid
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from tests.fuzz import mutations
from tests.fuzz.spool_files import (
    decode_finished,
    decode_open_log,
    edit_log,
    finished_lines,
    open_log,
)
from wm_core.contract.card import Manifest, PolicyCard
from wm_core.contract.errors import ChunkRefused, PolicyRefused, SettingsError, StoreError
from wm_core.contract.golden_archive import read_golden
from wm_core.contract.inputs import ImageSpec
from wm_core.contract.live import LiveReport
from wm_core.contract.onnx_limits import check_limits
from wm_core.contract.releases import Delivery, Keyring, Statement, verify_keyring
from wm_core.contract.signing import SecretKey, Signed, read_public_keys, seal
from wm_core.contract.spec import ActionSpec, Spec, VectorSpec
from wm_core.contract.step import Step
from wm_core.contract.trust import Trust
from wm_core.format import cdr
from wm_core.format.chunk import ChunkKey, ChunkMeta, check_chunk, encode_chunk
from wm_core.format.columns import read_columns
from wm_core.link.robot.journal import Journal, SpoolSession
from wm_core.link.robot.policy_cache import PolicyCache
from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.tokens import Tokens
from wm_core.robot.robot_file import RobotFile
from wm_core.store.index import index_path, load_index, make_index, write_sidecar
from wm_core.store.ledger import LEDGER_NAME, Ledger

ROOT = Path(__file__).parents[2]
MAX_CALLS = 3_000_000  #: of functions for one input: what any of them may cost
MAX_REASON = 4000  #: characters of what a decoder says

Edit = Callable[[bytes, random.Random], bytes]


class TooMuchWork(Exception):
    """Reports a decoder that called more functions for one input than any may."""


@dataclass(frozen=True)
class Target:
    """Is one decoder.

    Args:
        decode: reads bytes that may hold anything.
        seeds: good inputs; each decodes.
        refuses: the only errors that ``decode`` may raise.
        edit: makes one change that fits the format.
    """

    decode: Callable[[bytes], object]
    seeds: Callable[[], list[bytes]]
    refuses: tuple[type[Exception], ...]
    edit: Edit = mutations.edit_bytes

    def mutated(self, rng: random.Random) -> bytes:
        """Change a good input once or a few times."""
        data = rng.choice(_seeds(self))
        for _ in range(rng.choice((1, 1, 2, 4))):
            edit = self.edit if rng.randrange(4) else mutations.edit_bytes
            try:
                data = edit(data, rng)
            except Exception:  # no longer of its format
                data = mutations.edit_bytes(data, rng)
        return data

    def run(self, data: bytes) -> bool:
        """Decode ``data`` with its calls counted; returns whether it was taken."""
        left = MAX_CALLS

        def count(frame: Any, event: str, argument: Any) -> None:
            nonlocal left
            if event in ("call", "c_call"):
                left -= 1
                if left == 0:
                    raise TooMuchWork(f"more than {MAX_CALLS} calls")

        before = sys.getprofile()
        sys.setprofile(count)
        try:
            self.decode(data)
        except self.refuses as error:
            if not isinstance(error, SettingsError) and len(str(error)) > MAX_REASON:
                raise AssertionError(f"a reason of {len(str(error))} characters") from error
            return False
        finally:
            sys.setprofile(before)
        return True


@cache
def _seeds(target: Target) -> list[bytes]:
    return target.seeds()


# ---- experience ------------------------------------------------------------------------------

SPEC = Spec(
    images={"image": ImageSpec(height=6, width=8)},
    vectors={"proprio": VectorSpec(size=2, names=("hip", "knee"))},
    action=ActionSpec(low=(-1.0,), high=(1.0,), names=("turn",)),
)
SESSION = "0" * 32


def _step(number: int) -> Step:
    rng = np.random.default_rng(number)
    return Step(
        obs={"image": SPEC.images["image"].random(rng), "proprio": np.ones(2, np.float32)},
        action=np.zeros(1, np.float32),
        reward=0.0,
        is_first=number == 0,
        is_last=False,
        is_terminal=False,
        requested_action=None if number == 3 else np.zeros(1, np.float32),
        stamp_ns=10**9 + number,
    )


def chunks() -> list[bytes]:
    """Chunks of steps that are alike, and of steps that are not."""
    out = []
    for count in (2, 18):
        meta = ChunkMeta(
            robot="r", session=SESSION, seq=0, task="t", spec=SPEC, first_step=0, steps=count
        )
        out.append(encode_chunk([_step(i) for i in range(count)], meta))
    return out


def decode_chunk_both_ways(data: bytes) -> None:
    """Check and index a chunk, and read it once more message by message."""
    refusals = []
    for bulk in (True, False):
        try:
            if bulk:
                make_index(check_chunk(data, None, max_bytes=16 << 20))
            else:
                read_columns(data, bulk=False)
        except ChunkRefused as error:
            refusals.append(error)
    assert len(refusals) in (0, 2), f"only one way of reading refused: {refusals}"
    if refusals:
        raise refusals[0]


def _meta() -> list[bytes]:
    columns = check_chunk(chunks()[0], None, max_bytes=2**20)
    return [columns.meta.model_dump_json().encode()]


def _cdr_seeds() -> list[bytes]:
    pixels = np.zeros((6, 8, 3), np.uint8)
    return [
        cdr.encode_image(pixels, SPEC.images["image"], 7, "image"),
        cdr.encode_joint_state(("hip", "knee"), np.ones(2), 7, np.ones(2)),
    ]


def decode_cdr(data: bytes) -> None:
    """Read a message as either type; each refuses by itself."""
    failed = []
    for decode in (cdr.decode_joint_state, lambda d: cdr.decode_image(d, SPEC.images["image"])):
        try:
            decode(data)
        except ChunkRefused as error:
            failed.append(error)
    if len(failed) == 2:
        raise failed[0]


# ---- policies --------------------------------------------------------------------------------


@cache
def _policy() -> dict[str, bytes]:
    """The files of a policy that release 0.1.0 exported."""
    with tarfile.open(ROOT / "tests/fixtures/runs_of_0.1.0.tar.xz") as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.name.startswith("dreamer_v3/exported/policy.")
        }


def _card() -> bytes:
    model = _policy()["policy.onnx"]
    start = model.index(b'{"card_version"')
    text, _ = json.JSONDecoder().raw_decode(model[start:].decode("utf-8", "ignore"))
    return json.dumps(text).encode()


_OWNER = SecretKey.make("owner", "fuzz")


def _signed() -> list[bytes]:
    keyring = {"keyring_version": 1, "number": 1, "keys": []}
    return [seal("keyring", json.dumps(keyring), [_OWNER]).model_dump_json().encode()]


def decode_signed(data: bytes) -> None:
    """Read signed documents, and verify one as a keyring of the owner."""
    for kind in (Delivery, Keyring, Statement):
        try:
            kind.parse(data)
        except PolicyRefused:
            continue
    verify_keyring(Signed.parse(data), {_OWNER.public: "owner"})


def _statement() -> list[bytes]:
    first, second = ({"manifest": f"{n}" * 64, "version": n} for n in (2, 3))
    times = {"issued": 1_800_000_000, "expires": 1_800_086_400, "channel": "main", "serial": 5}
    rollout = {"release": second, "share": 0.0, "robots": ["x"]}
    return [json.dumps({**times, "pins": {"r": first}, "rollout": rollout}).encode()]


def decode_statement(data: bytes) -> None:
    """Take a statement that a stolen channel key signed."""
    role = {"keys": [{"key": _OWNER.public, "roles": ["channel"]}], "number": 1}
    document = data.decode("utf-8", "replace")
    delivery = Delivery.model_construct(
        keyring=seal("keyring", json.dumps(role), [_OWNER]),
        statement=seal("statement", document, [_OWNER]),
        manifest=None,
    )
    trust = Trust({_OWNER.public: "owner"}, clock=lambda: 1_800_000_001)
    trust.take(delivery.model_dump_json().encode(), channel="main", robot="rover")


def decode_memory(data: bytes) -> None:
    """Start with a damaged memory of what was told: it is passed over."""
    path = _written("trust.json", data)
    try:
        trust = Trust({_OWNER.public: "owner"}, path)
        trust.now_s()
        trust.stale("main")
    finally:
        _remove(path)


def _memory() -> list[bytes]:
    heard = {"serial": 5, "key": _OWNER.public, "issued": 7, "expires": 9, "digest": "0"}
    keys = {"keys": [{"key": _OWNER.public, "roles": ["channel"]}], "number": 1}
    ring = json.loads(seal("keyring", json.dumps(keys), [_OWNER]).model_dump_json())
    return [json.dumps({"keyring": ring, "heard": {"main": heard}}).encode()]


def decode_plan(data: bytes) -> None:
    """Read the course of a channel, and sum up who runs what."""
    path = _written("plan.json", data)
    try:
        channels = Channels(path.parent.parent, line="none")
        channels.course(path.parent.name).plan.release_for("rover")
    finally:
        _remove(path)


def _plan() -> list[bytes]:
    release = {"manifest": "0" * 64, "version": 2}
    rollout = {"release": release, "share": 0.25, "robots": ["rover"]}
    plan = {"current": release, "rollout": rollout, "pins": {"arm": release}}
    return [json.dumps({"follow": False, "plan": plan, "history": [release]}).encode()]


def decode_order(data: bytes) -> None:
    """Start with a damaged order of arrival, and a damaged pointer: both are passed over."""
    path = _written("order.json", data)
    (path.parent / "latest.json").write_bytes(data)
    try:
        assert PolicyCache(path.parent, 3).versions() == []
    finally:
        _remove(path)


# ---- files -----------------------------------------------------------------------------------


def _in_folder(name: str) -> Path:
    return Path(_folder()) / uuid.uuid4().hex / name


@cache
def _folder() -> str:
    return tempfile.mkdtemp(prefix="wm-fuzz-")


def _written(name: str, data: bytes) -> Path:
    path = _in_folder(name)
    path.parent.mkdir(parents=True)
    path.write_bytes(data)
    return path


def _remove(path: Path) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    path.parent.rmdir()


def decode_journal(data: bytes) -> None:
    """Read a journal as the robot's start does: a bad one is no journal."""
    path = _written("session.json", data)
    try:
        session = SpoolSession(path.parent)
        session.journal()
        session.has_newer_journal()
    finally:
        _remove(path)


def decode_tokens(data: bytes) -> None:
    """Read a tokens file, and ask it for a token."""
    path = _written("tokens.txt", data)
    try:
        Tokens(path).check("x" * 43, "rover")
    finally:
        _remove(path)


def decode_keys(data: bytes) -> None:
    """Read a file of public keys."""
    path = _written("keys.pub", data)
    try:
        read_public_keys(path)
    finally:
        _remove(path)


def _ledger() -> list[bytes]:
    path = _in_folder(LEDGER_NAME)
    ledger = Ledger(path)
    columns = check_chunk(chunks()[0], None, max_bytes=2**20)
    for seq in range(20):
        ledger.add(ChunkKey("r", SESSION, seq), "0" * 64, 100, columns.meta)
    ledger.add_refused(ChunkKey("r", SESSION, 20), "0" * 64, 100, "no chunk")
    ledger.close()
    data = path.read_bytes()
    _remove(path)
    return [data]


def decode_ledger(data: bytes) -> None:
    """Open a ledger and read all that it tells."""
    path = _written(LEDGER_NAME, data)
    try:
        ledger = Ledger(path)
        try:
            ledger.since(0)
            ledger.counts()
            ledger.refused()
            ledger.sessions()
            ledger.find(ChunkKey("r", SESSION, 3))
            ledger.pruned_through()
        finally:
            ledger.close()
    finally:
        _remove(path)


def _store(data: bytes, sidecar: bytes | None) -> bytes:
    """Put one chunk and its sidecar into a store and read its index; returns the sidecar."""
    key = ChunkKey("r", SESSION, 0)
    root = _in_folder("store").parent
    path = index_path(root, key)
    path.parent.mkdir(parents=True)
    path.with_name("00000000.mcap").write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    columns = check_chunk(data, key, max_bytes=2**20)
    ledger = Ledger(root / LEDGER_NAME)
    ledger.add(key, sha256, len(data), columns.meta)
    [row] = ledger.since(0)
    ledger.close()
    if sidecar is None:
        write_sidecar(root, key, make_index(columns), sha256)
    else:
        path.write_bytes(sidecar)
    written = path.read_bytes()
    index = load_index(root, row)
    assert len(index.steps) == row.steps
    for file in sorted(root.rglob("*"), reverse=True):
        file.rmdir() if file.is_dir() else file.unlink()
    return written


def decode_sidecar(data: bytes) -> None:
    """Read a sidecar as the learner does: a bad one is made again from its chunk."""
    _store(chunks()[0], data)


def decode_robot_file(data: bytes) -> None:
    """Read a robot file and what follows from it."""
    path = _written("robot.yaml", data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            robot = RobotFile.load(path)
            robot.spec()
    finally:
        _remove(path)


def _robot_files() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "examples/robots").glob("*.yaml"))]


def _open_logs() -> list[bytes]:
    meta = ChunkMeta(robot="r", session=SESSION, seq=3, spec=SPEC, first_step=9, steps=3)
    return [open_log(meta, [_step(i) for i in range(3)], ended=ended) for ended in (False, True)]


_JSON, _ZIP = mutations.edit_json, mutations.edit_archive
TARGETS: dict[str, Target] = {
    "chunk": Target(decode_chunk_both_ways, chunks, (ChunkRefused,), mutations.edit_chunk),
    "cdr": Target(decode_cdr, _cdr_seeds, (ChunkRefused,)),
    "meta": Target(lambda d: ChunkMeta.parse(d.decode("utf-8", "replace")), _meta,
                   (ChunkRefused,), _JSON),
    "manifest": Target(Manifest.parse, lambda: [_policy()["policy.manifest.json"]],
                       (PolicyRefused,), _JSON),
    "card": Target(PolicyCard.parse, lambda: [_card()], (PolicyRefused,), _JSON),
    "signed": Target(decode_signed, _signed, (PolicyRefused,), _JSON),
    "statement": Target(decode_statement, _statement, (PolicyRefused,), _JSON),
    "memory": Target(decode_memory, _memory, (), _JSON),
    "plan": Target(decode_plan, _plan, (StoreError,), _JSON),
    "order": Target(decode_order, lambda: [b"[1, 2, 3]", _policy()["policy.manifest.json"]], (),
                    _JSON),
    "onnx": Target(check_limits, lambda: [_policy()["policy.onnx"]], (PolicyRefused,),
                   mutations.edit_protobuf),
    "golden": Target(read_golden, lambda: [_policy()["policy.golden.npz"]], (PolicyRefused,),
                     _ZIP),
    "journal": Target(decode_journal, lambda: [Journal(
        robot="r", session=SESSION, task="t", created_ns=1).model_dump_json().encode()],
        (), _JSON),
    "open_log": Target(decode_open_log, _open_logs, (ChunkRefused,), edit_log),
    "finished": Target(decode_finished, finished_lines, ()),
    "tokens": Target(decode_tokens, lambda: [b"rover " + b"0" * 64 + b"\n# x\nr2 " + b"1" * 64
                     + b" expires=2027-01-31T00:00:00Z\n"], (SettingsError,)),
    "keys": Target(decode_keys, lambda: [f"{_OWNER.public} fuzz\n".encode()],
                   (SettingsError, PolicyRefused)),
    "ledger": Target(decode_ledger, _ledger, (StoreError,)),
    "sidecar": Target(decode_sidecar, lambda: [_store(chunks()[0], None)], (ChunkRefused,), _ZIP),
    "live": Target(LiveReport.parse, lambda: [
        b'{"t_ns": 1, "action": [0.5, null], "counters": {"a": 1}, "cameras": {"a": '
        b'{"t_ns": 1, "jpeg": "/9j/wAARCAAIAAgDAREAAhEBAxEB/9k="}}}'], (ValueError,), _JSON),
    "robot_file": Target(decode_robot_file, _robot_files, (SettingsError,)),
}  # fmt: skip

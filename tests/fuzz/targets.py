"""Names every decoder that reads what a network or a file brings, and what it may answer."""

from __future__ import annotations

import warnings

from tests.fuzz import experience, mutations, picture_targets, policies
from tests.fuzz.spool_files import (
    decode_finished,
    decode_open_log,
    edit_log,
    finished_lines,
)
from tests.fuzz.target import ROOT, Target, remove, written
from wm_core.contract.card import Manifest, PolicyCard
from wm_core.contract.errors import ChunkRefused, PolicyRefused, SettingsError, StoreError
from wm_core.contract.golden_archive import read_golden
from wm_core.contract.live import LiveReport
from wm_core.contract.onnx_limits import check_limits
from wm_core.format.chunk import ChunkMeta
from wm_core.link.robot.journal import Journal
from wm_core.robot.robot_file import RobotFile


def decode_robot_file(data: bytes) -> None:
    """Read a robot file and what follows from it."""
    path = written("robot.yaml", data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            robot = RobotFile.load(path)
            robot.spec()
    finally:
        remove(path)


def _robot_files() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "examples/robots").glob("*.yaml"))]


_JSON, _ZIP = mutations.edit_json, mutations.edit_archive
TARGETS: dict[str, Target] = {
    "chunk": Target(
        experience.decode_chunk_both_ways, experience.chunks, (ChunkRefused,), mutations.edit_chunk
    ),
    "cdr": Target(experience.decode_cdr, experience.messages, (ChunkRefused,)),
    "meta": Target(
        lambda d: ChunkMeta.parse(d.decode("utf-8", "replace")),
        experience.metas,
        (ChunkRefused,),
        _JSON,
    ),
    "manifest": Target(
        Manifest.parse,
        lambda: [policies.policy()["policy.manifest.json"]],
        (PolicyRefused,),
        _JSON,
    ),
    "card": Target(PolicyCard.parse, lambda: [policies.card()], (PolicyRefused,), _JSON),
    "signed": Target(policies.decode_signed, policies.signed, (PolicyRefused,), _JSON),
    "statement": Target(policies.decode_statement, policies.statements, (PolicyRefused,), _JSON),
    "memory": Target(policies.decode_memory, policies.memories, (), _JSON),
    "plan": Target(policies.decode_plan, policies.plans, (StoreError,), _JSON),
    "order": Target(
        policies.decode_order,
        lambda: [b"[1, 2, 3]", policies.policy()["policy.manifest.json"]],
        (),
        _JSON,
    ),
    "onnx": Target(
        check_limits,
        lambda: [policies.policy()["policy.onnx"]],
        (PolicyRefused,),
        mutations.edit_protobuf,
    ),
    "golden": Target(
        read_golden, lambda: [policies.policy()["policy.golden.npz"]], (PolicyRefused,), _ZIP
    ),
    "journal": Target(
        experience.decode_journal,
        lambda: [
            Journal(robot="r", session=experience.SESSION, task="t", created_ns=1)
            .model_dump_json()
            .encode()
        ],
        (),
        _JSON,
    ),
    "open_log": Target(decode_open_log, experience.open_logs, (ChunkRefused,), edit_log),
    "finished": Target(decode_finished, finished_lines, ()),
    "tokens": Target(
        policies.decode_tokens,
        lambda: [
            b"rover " + b"0" * 64 + b"\n# x\nr2 " + b"1" * 64 + b" expires=2027-01-31T00:00:00Z\n"
        ],
        (SettingsError,),
    ),
    "keys": Target(
        policies.decode_keys,
        lambda: [f"{policies.OWNER.public} fuzz\n".encode()],
        (SettingsError, PolicyRefused),
    ),
    "ledger": Target(experience.decode_ledger, experience.ledgers, (StoreError,)),
    "sidecar": Target(
        experience.decode_sidecar,
        lambda: [experience.store(experience.chunks()[0], None)],
        (ChunkRefused,),
        _ZIP,
    ),
    "live": Target(
        LiveReport.parse,
        lambda: [
            b'{"t_ns": 1, "action": [0.5, null], "counters": {"a": 1}, "cameras": {"a": '
            b'{"t_ns": 1, "jpeg": "/9j/wAARCAAIAAgDAREAAhEBAxEB/9k="}}}'
        ],
        (ValueError,),
        _JSON,
    ),
    "robot_file": Target(decode_robot_file, _robot_files, (SettingsError,)),
    "picture": Target(
        picture_targets.decode_one, picture_targets.pictures, (ChunkRefused,), picture_targets.edit
    ),
    "picture_chunk": Target(
        picture_targets.decode_chunk,
        picture_targets.chunks,
        (ChunkRefused,),
        mutations.edit_chunk,
    ),
}

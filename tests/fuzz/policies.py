"""Good policies, signatures, keys and plans, and what reads them."""

from __future__ import annotations

import json
import tarfile
from functools import cache
from pathlib import Path

from tests.fuzz.target import ROOT, remove, written
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.releases import Delivery, Keyring, Statement, verify_keyring
from wm_core.contract.signing import SecretKey, Signed, read_public_keys, seal
from wm_core.contract.trust import Trust
from wm_core.link.robot.policy_cache import PolicyCache
from wm_core.link.trainer.channels import Channels
from wm_core.link.trainer.tokens import Tokens


@cache
def policy() -> dict[str, bytes]:
    """The files of a policy that release 0.1.0 exported."""
    with tarfile.open(ROOT / "tests/fixtures/runs_of_0.1.0.tar.xz") as archive:
        return {
            Path(member.name).name: archive.extractfile(member).read()  # type: ignore[union-attr]
            for member in archive.getmembers()
            if member.name.startswith("dreamer_v3/exported/policy.")
        }


def card() -> bytes:
    model = policy()["policy.onnx"]
    start = model.index(b'{"card_version"')
    text, _ = json.JSONDecoder().raw_decode(model[start:].decode("utf-8", "ignore"))
    return json.dumps(text).encode()


OWNER = SecretKey.make("owner", "fuzz")


def signed() -> list[bytes]:
    keyring = {"keyring_version": 1, "number": 1, "keys": []}
    return [seal("keyring", json.dumps(keyring), [OWNER]).model_dump_json().encode()]


def decode_signed(data: bytes) -> None:
    """Read signed documents, and verify one as a keyring of the owner."""
    for kind in (Delivery, Keyring, Statement):
        try:
            kind.parse(data)
        except PolicyRefused:
            continue
    verify_keyring(Signed.parse(data), {OWNER.public: "owner"})


def statements() -> list[bytes]:
    first, second = ({"manifest": f"{n}" * 64, "version": n} for n in (2, 3))
    times = {"issued": 1_800_000_000, "expires": 1_800_086_400, "channel": "main", "serial": 5}
    rollout = {"release": second, "share": 0.0, "robots": ["x"]}
    return [json.dumps({**times, "pins": {"r": first}, "rollout": rollout}).encode()]


def decode_statement(data: bytes) -> None:
    """Take a statement that a stolen channel key signed."""
    role = {"keys": [{"key": OWNER.public, "roles": ["channel"]}], "number": 1}
    document = data.decode("utf-8", "replace")
    delivery = Delivery.model_construct(
        keyring=seal("keyring", json.dumps(role), [OWNER]),
        statement=seal("statement", document, [OWNER]),
        manifest=None,
    )
    trust = Trust({OWNER.public: "owner"}, clock=lambda: 1_800_000_001)
    trust.take(delivery.model_dump_json().encode(), channel="main", robot="rover")


def decode_memory(data: bytes) -> None:
    """Start with a damaged memory of what was told: it is passed over."""
    path = written("trust.json", data)
    try:
        trust = Trust({OWNER.public: "owner"}, path)
        trust.now_s()
        trust.stale("main")
    finally:
        remove(path)


def memories() -> list[bytes]:
    heard = {"serial": 5, "key": OWNER.public, "issued": 7, "expires": 9, "digest": "0"}
    keys = {"keys": [{"key": OWNER.public, "roles": ["channel"]}], "number": 1}
    ring = json.loads(seal("keyring", json.dumps(keys), [OWNER]).model_dump_json())
    return [json.dumps({"keyring": ring, "heard": {"main": heard}}).encode()]


def decode_plan(data: bytes) -> None:
    """Read the course of a channel, and sum up who runs what."""
    path = written("plan.json", data)
    try:
        channels = Channels(path.parent.parent, line="none")
        channels.course(path.parent.name).plan.release_for("rover")
    finally:
        remove(path)


def plans() -> list[bytes]:
    release = {"manifest": "0" * 64, "version": 2}
    rollout = {"release": release, "share": 0.25, "robots": ["rover"]}
    plan = {"current": release, "rollout": rollout, "pins": {"arm": release}}
    return [json.dumps({"follow": False, "plan": plan, "history": [release]}).encode()]


def decode_order(data: bytes) -> None:
    """Start with a damaged order of arrival, and a damaged pointer: both are passed over."""
    path = written("order.json", data)
    (path.parent / "latest.json").write_bytes(data)
    try:
        assert PolicyCache(path.parent, 3).versions() == []
    finally:
        remove(path)


def decode_tokens(data: bytes) -> None:
    """Read a tokens file, and ask it for a token."""
    path = written("tokens.txt", data)
    try:
        Tokens(path).check("x" * 43, "rover")
    finally:
        remove(path)


def decode_keys(data: bytes) -> None:
    """Read a file of public keys."""
    path = written("keys.pub", data)
    try:
        read_public_keys(path)
    finally:
        remove(path)

"""What a policy, a chunk of experience, a store or a run folder says about itself."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from wm_core.contract.errors import SettingsError, nearest
from wm_core.contract.files import read_json, siblings
from wm_core.contract.policy_folder import PolicyFolder, read_plain
from wm_core.contract.runner import MAX_MODEL_BYTES, PolicyRunner
from wm_core.format.chunk import decode_chunk
from wm_core.library.run_lock import is_running
from wm_core.link.trainer.policy_repository import PolicyRepository
from wm_core.store.invalid import invalid_in
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.status import ENDED

Facts = dict[str, Any]
_MAX_CHUNK_BYTES = 256 << 20
LOOKED_AT = 500  #: newest chunks of a store whose steps are looked at, so that any store is quick
#: of the status of a run, where there is something to say
_STATUS_FACTS = (
    *("phase", "waiting_for", "updates", "agent_steps", "episodes", "last_return", "metrics"),
    *("invalid_steps", "env_restarts", "evaluation"),
)


def describe(path: str | Path) -> Facts:
    """Read what the file or folder at ``path`` says about itself, without loading a network.

    Returns:
        Facts by name; the first, ``kind``, is policy, chunk, store or run.

    Raises:
        SettingsError: for a path that does not exist (naming the nearest) or is nothing of ours.
        WmError: for a policy or chunk that is damaged.
    """
    path = Path(path)
    if not path.exists():
        raise SettingsError(nearest(path.name, siblings(path), what=f"file in {path.parent}"))
    if path.suffix == ".onnx" or PolicyFolder(path).onnx.exists():
        return _policy(path)
    if path.suffix == ".mcap":
        return _chunk(path)
    if (path / LEDGER_NAME).exists():
        return _store(path)
    if (path / "settings.json").exists() or (path / "policies").is_dir():
        return _run(path)
    raise SettingsError(
        f"{path}: expected a policy folder, an .onnx or .mcap file, a store or a run folder"
    )


def _policy(path: Path) -> Facts:
    folder = PolicyFolder(path)
    if folder.manifest.exists():
        runner, proof = PolicyRunner.load(path), "hashes and golden rollout hold"
    else:
        runner = PolicyRunner.from_bytes(read_plain(folder.onnx, MAX_MODEL_BYTES))
        proof = "no manifest: not proved"
    card = json.loads(runner.card.model_dump_json())
    card["inputs"] = [f"{i['name']} {i['dtype']} {i['shape']}" for i in card["inputs"]]
    card["outputs"] = [f"{o['name']} {o['dtype']} {o['shape']}" for o in card["outputs"]]
    size = folder.onnx.stat().st_size
    return {"kind": "policy", "proof": proof, "bytes": size} | card


def _chunk(path: Path) -> Facts:
    meta, steps = decode_chunk(read_plain(path, _MAX_CHUNK_BYTES))
    rewards = np.array([s.reward for s in steps])
    return {
        "kind": "chunk",
        "bytes": path.stat().st_size,
        **json.loads(meta.model_dump_json()),
        "seconds": (steps[-1].stamp_ns - steps[0].stamp_ns) / 1e9,
        "reward_sum": float(np.nansum(rewards)),
        "first": sum(s.is_first for s in steps),
        "last": sum(s.is_last for s in steps),
        "terminal": sum(s.is_terminal for s in steps),
        "intervention": sum(s.is_intervention for s in steps),
        "invalid": sum(not s.is_valid for s in steps),
        "policy_versions": dict(sorted(Counter(s.policy_version for s in steps).items())),
    }


def _store(path: Path) -> Facts:
    ledger = Ledger(path / LEDGER_NAME, read_only=True)
    try:
        robots = Counter(robot for robot, _ in ledger.sessions())
        refused = Counter(row.reason for row in ledger.refused())
        counts, rows = ledger.counts(), ledger.newest(LOOKED_AT)
        facts = {
            "kind": "store",
            **counts,
            "sessions_by_robot": dict(sorted(robots.items())),
            "refused_by_reason": dict(refused.most_common(5)),
            "invalid_steps": dict(invalid_in(path, rows).by_reason),
        }
        if counts["chunks"] > len(rows):
            facts["invalid_steps_of"] = f"the newest {len(rows)} of {counts['chunks']} chunks"
        return facts
    finally:
        ledger.close()


def _run(path: Path) -> Facts:
    facts: Facts = {"kind": "run"}
    settings, status = read_json(path / "settings.json"), read_json(path / "status.json")
    facts |= {k: settings[k] for k in ("preset", "size", "task", "seed") if k in settings}
    facts |= settings.get("about", {})
    for key in _STATUS_FACTS:
        if status.get(key) not in (None, "", {}):
            facts[key] = status[key]
    if facts.get("phase") not in (None, *ENDED) and is_running(path) is None:
        facts["phase"] = f"killed while {facts['phase']}"
    last = PolicyRepository(path / "policies").latest()
    if last is not None:
        facts["policy"] = {"version": last.version, "learner_updates": last.learner_updates}
    checkpoints = sorted(p.name for p in (path / "checkpoints").glob("*.pt"))
    facts["checkpoints"] = checkpoints
    if (path / "store" / LEDGER_NAME).exists():
        facts["store"] = {k: v for k, v in _store(path / "store").items() if k != "kind"}
    return facts

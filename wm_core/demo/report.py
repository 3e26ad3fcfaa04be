"""Gather the figures of the report from files on the disk, never from counters in memory."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from wm_core.contract.files import json_text, read_json, write_atomically
from wm_core.demo.page import Episode, ReportData
from wm_core.format.chunk import chunk_path, decode_chunk
from wm_core.library.returns_so_far import BASELINES
from wm_core.link.audit import SessionAudit, audit
from wm_core.store.ledger import LEDGER_NAME, Ledger
from wm_core.training.returns import Evaluation

TICK_FIGURES = (
    *("ticks", "missed_ticks", "safe_ticks"),
    *("tick_p50_ms", "tick_p99_ms", "obs_age_p99_ms"),
)
SWAP_UPDATES = 50  #: learner updates between two swaps that count


class Baselines(NamedTuple):
    """What was measured before the robot moved."""

    random: Evaluation  #: of uniform random actions
    best: float  #: the return that counts as perfect
    first: Evaluation  #: of version 0, untrained


def write_baselines(run: Path, task: str, random: Evaluation, best: float) -> None:
    """Leave in ``run`` what random actions and the best one return, for who watches it."""
    summary = {name: random.summary()[name] for name in ("mean", "low", "high", "episodes")}
    told = {"task": task, "random": summary, "best": best}
    write_atomically(run / BASELINES, json_text(told, indent=2).encode())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """One object per line of ``path``; a last line that was cut off is left out."""
    found = []
    if path.exists():
        for line in path.read_text().splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                break
    return found


def counted_swaps(swaps: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep the swaps with new weights and ``SWAP_UPDATES`` or more updates since the last."""
    counted: list[dict[str, Any]] = []
    seen: set[str] = set()
    last = -SWAP_UPDATES
    for swap in swaps:
        if swap["weights_sha256"] in seen:
            continue
        seen.add(swap["weights_sha256"])
        if swap["learner_updates"] - last >= SWAP_UPDATES:
            if last >= 0:  # the first policy replaces none
                counted.append(swap)
            last = swap["learner_updates"]
    return counted


def episodes(store: Path) -> list[Episode]:
    """Read every episode that is complete in the store, in the order of time.

    An episode whose end is the last step of its session is left out: there the robot stopped.
    """
    ledger = Ledger(store / LEDGER_NAME, read_only=True)
    found: list[Episode] = []
    begin_ns: int | None = None
    try:
        for robot, session in ledger.sessions():
            total, whole, expected = 0.0, False, 0
            ended: Episode | None = None
            for row in ledger.of_session(robot, session):
                whole, expected = whole and row.seq == expected, row.seq + 1
                for step in decode_chunk(chunk_path(store, row.key).read_bytes())[1]:
                    begin_ns = step.stamp_ns if begin_ns is None else begin_ns
                    if ended is not None:
                        found.append(ended)
                        ended = None
                    if step.is_first:
                        total, whole = 0.0, True
                    total += step.reward
                    if step.is_last and whole:
                        minute = (step.stamp_ns - begin_ns) * 1e-9 / 60
                        ended, whole = Episode(minute, total, step.policy_version), False
    finally:
        ledger.close()
    return found


def steps_not_stored(
    recorder: Mapping[str, int], sessions: Iterable[SessionAudit]
) -> dict[str, int]:
    """Count the ticks whose step is not in the store, by the reason why.

    Args:
        recorder: its own reasons; what it calls ``spool_full`` the spool names more precisely.
        sessions: accounts of the spool's journals.
    """
    reasons = Counter({k: n for k, n in recorder.items() if k != "spool_full"})
    for session in sessions:
        reasons.update(session.steps_dropped)
        reasons["pruned"] += session.steps_pruned
    return dict(+reasons)


def gather(
    run: Path,
    *,
    task: str,
    minutes: float,
    commit: str,
    baselines: Baselines,
    final: Evaluation,
) -> dict[str, Any]:
    """Gather the figures of ``report.json``.

    Args:
        run: the demo's folder, after every process has ended.
        task: what was learnt.
        minutes: wall time of the whole demo.
        commit: of the code that ran.
        baselines: what the final returns are compared with.
        final: returns of the exported file that the robot ran last.
    """
    status = read_json(run / "robot" / "status.json")
    ticks = read_json(run / "robot" / "ticks.json")
    learner = read_json(run / "status.json")
    swaps = read_lines(run / "robot" / "swaps.jsonl")
    book = audit(run / "store", [run / "spool"])
    reasons = steps_not_stored(status.get("dropped", {}), book.sessions)
    happened = ticks.get("ticks", 0) + ticks.get("safe_ticks", 0)
    return {
        "task": task,
        "minutes": minutes,
        "random_return": baselines.random.mean,
        "best_return": baselines.best,
        "first_return": baselines.first.mean,
        "final_return": final.mean,
        "final_return_low": final.bounds[0],
        "random_return_high": baselines.random.bounds[1],
        "eval_episodes": len(final.returns),
        "steps_recorded": status.get("steps_recorded"),
        "steps_stored": book.steps_stored,
        "chunks_sent": book.chunks_sent,
        "chunks_acked": book.chunks_acked,
        "chunks_lost": book.chunks_lost,
        "policy_versions": len({s["weights_sha256"] for s in swaps}),
        "swaps": len(counted_swaps(swaps)),
        **{name: ticks.get(name) for name in TICK_FIGURES},
        "learner_updates": learner.get("updates"),
        "commit": commit,
        "steps_not_stored": reasons,
        "steps_unaccounted": happened - book.steps_stored - sum(reasons.values()),
        "safe_by_reason": ticks.get("safe_by_reason", {}),
    }


def report_data(run: Path, pictures: Sequence[Path], next_commands: Sequence[str]) -> ReportData:
    """Read what the page shows in addition to the figures."""
    bins = read_json(run / "robot" / "ticks.json").get("histograms", {}).get("tick_ms", {})
    swaps = read_lines(run / "robot" / "swaps.jsonl")
    begin_s = swaps[0]["time_s"] if swaps else 0.0
    return ReportData(
        episodes=episodes(run / "store"),
        swaps=[((s["time_s"] - begin_s) / 60, s["version"]) for s in counted_swaps(swaps)],
        latency_ms=list(zip(bins.get("edges_ms", []), bins.get("counts", []), strict=True)),
        pictures=pictures,
        next_commands=next_commands,
    )

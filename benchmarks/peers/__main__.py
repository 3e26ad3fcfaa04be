"""``make bench-peers``: seconds per update and peak memory of peers and ours, side by side.

Every contestant has a process of its own.  They take turns, an update each, so that what else the
machine does reaches all of them alike; compare the ratios.  Networks and batches have the same
sizes, but each contestant keeps its own algorithm: where ours imagines from a part of the
states and decodes a part of the frames (size micro), its peers do so from all.
"""

from __future__ import annotations

import argparse
import statistics
import sys

from benchmarks.peers.sizes import SIZES
from benchmarks.peers.turns import PEERS, WARM, Turn, measured
from wm_core.bench.report import Report


def main(argv: list[str]) -> int:
    """Measure and report; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS))
    parser.add_argument("--sizes", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--precisions", nargs="+", default=["bf16-mixed", "32-true"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--updates", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    with Report("make bench-peers", as_json=given.json) as report:
        for size in given.sizes:
            for precision in given.precisions:
                report.progress(f"{size} {precision}: {', '.join(given.peers)}")
                found = measured(given.peers, size, precision, given.threads, given.updates)
                _report(report, f"{size}/{precision}", found)
    return 0


def _report(report: Report, what: str, found: dict[str, tuple[int, list[Turn]]]) -> None:
    costs = {}
    for name, (parameters, turns) in found.items():
        counted = turns[WARM:]
        costs[name] = statistics.median(t.cpu_s for t in counted), counted[-1].peak_mb
        wall = statistics.median(t.wall_s for t in counted)
        report.add(f"{name}/{what}/seconds_per_step", wall, "s")
        report.add(f"{name}/{what}/cpu_seconds_per_step", costs[name][0], "s")
        report.add(f"{name}/{what}/peak_mb", costs[name][1], "MB")
        report.add(f"{name}/{what}/parameters", parameters, "")
    ours = costs.pop("learner", None)
    for name, (cpu, peak) in costs.items() if ours else ():
        report.add(f"{name}/{what}/times_our_cpu_seconds", cpu / ours[0], "x")
        report.add(f"{name}/{what}/times_our_peak", peak / ours[1], "x")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

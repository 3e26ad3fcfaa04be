"""Measure what swaps of policies cost the control loop: late ticks with and without them.

One loop acts at a fixed rate on random images; while swaps are on, each policy is followed by the
next as soon as it runs.  Turns with and without take turns, so that whatever else the machine does
meets both alike.  The policies are untrained; ``--make`` writes them, which needs torch, and the
measurement runs on any Python of a robot.

    python -m benchmarks.swap_ticks --make runs/swap_ticks
    python -m benchmarks.swap_ticks --policies runs/swap_ticks --sizes micro --swaps 1000
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
import time
from pathlib import Path

import numpy as np

from wm_core.contract.onnx_native import library
from wm_core.contract.spec import ActionSpec, Spec
from wm_ros.policies.slot import PolicySlot
from wm_ros.settings import SlotSettings

RATES_HZ = {"micro": 100.0, "12m": 50.0, "50m": 20.0}  #: that a robot of two cores keeps
TURN_S = 5.0
NAMES = ("without", "with")


class Turns:
    """Offers the one of two policies that does not run, while it is switched on."""

    def __init__(self, folders: list[Path]) -> None:
        self.folders, self.on, self.slot = folders, True, None

    def versions(self) -> list[Path]:
        """List the policy that should run next."""
        runner = None if self.slot is None else self.slot.runner
        if runner is None:
            return self.folders[:1]
        return [f for f in self.folders if int(f.name) != runner.card.version] if self.on else []

    def problem(self) -> str:
        """There is always one."""
        return ""


def make(folder: Path, sizes: list[str]) -> None:
    """Write two untrained policies of each size."""
    from wm_core.library.agent import Agent

    spec = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)), period_s=0.01)
    for size in sizes:
        for version in (0, 1):
            agent = Agent.create("dreamer_v3", spec, size=size, seed=version)
            agent.export(folder / size / "export")
            renumber(folder / size / "export", folder / size / str(version), version)


def renumber(source: Path, target: Path, version: int) -> None:
    """Give an exported policy another version, in its card and its manifest."""
    import onnx

    from wm_core.contract.card import CARD_KEY, PolicyCard
    from wm_core.contract.policy_folder import PolicyFolder

    model = onnx.load(str(source / "policy.onnx"))
    card = PolicyCard.parse(model.metadata_props[0].value).model_copy(update={"version": version})
    model.metadata_props[0].key, model.metadata_props[0].value = CARD_KEY, card.model_dump_json()
    golden = (source / "policy.golden.npz").read_bytes()
    data = model.SerializeToString()
    PolicyFolder(target).write(data, golden, card.weights_sha256, version=version)


def turn(slot: PolicySlot, rate_hz: float, rng: np.random.Generator) -> tuple[list[float], float]:
    """Lateness (in periods) of every tick of one turn, and the longest in seconds."""
    period_s, spec = 1.0 / rate_hz, slot.runner.spec
    sent, late = np.zeros(spec.action.size, np.float32), []
    frames = [{k: s.random(rng) for k, s in spec.inputs.items()} for _ in range(16)]
    due = time.perf_counter() + period_s
    for tick in range(round(TURN_S * rate_hz)):
        time.sleep(max(0.0, due - time.perf_counter()))
        late.append((time.perf_counter() - due) / period_s)
        sent = slot.act(frames[tick % 16], sent, False).action
        slot.between_ticks()
        slot.prepare(sent)
        due += period_s
        if (now := time.perf_counter()) > due + period_s:  # what was missed is not caught up
            due = now
    return late, max(late) * period_s


def measure(folder: Path, rate_hz: float, swaps: int, turns: int) -> dict[str, dict[str, float]]:
    """Run turns with and without swaps until there were ``swaps``, at most ``turns`` of each."""
    source = Turns([folder / "0", folder / "1"])
    slot = PolicySlot(source, SlotSettings(policy_poll_s=0.01, history_s=1.0))
    source.slot = slot
    slot.look()
    slot.between_ticks()
    slot.start()
    rng, late, worst = np.random.default_rng(0), {n: [] for n in NAMES}, dict.fromkeys(NAMES, 0.0)
    turn(slot, rate_hz, rng)
    gc.collect()
    gc.freeze()  # as the node does once it runs
    made = 0
    for _ in range(turns):
        for name in NAMES:
            source.on, before = name == "with", slot.swaps
            found, longest = turn(slot, rate_hz, rng)
            late[name] += found
            worst[name] = max(worst[name], longest)
            made += slot.swaps - before
        if made >= swaps:
            break
    slot.close()
    return {
        name: {
            "ticks": len(values),
            "late_by_a_period": sum(v > 1 for v in values),
            "late_share": sum(v > 1 for v in values) / len(values),
            "p99_ms": float(np.quantile(values, 0.99)) / rate_hz * 1e3,
            "worst_ms": worst[name] * 1e3,
            "swaps": made if name == "with" else 0,
            "refused": len(slot.refusals),
        }
        for name, values in late.items()
    }


def main() -> None:
    """Measure every size and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--make", type=Path, help="folder in which to write untrained policies")
    parser.add_argument("--policies", type=Path, help="folder in which they are")
    parser.add_argument("--sizes", nargs="+", default=["micro", "12m", "50m"])
    parser.add_argument("--rate-hz", type=float, help="of the loop; default: that of the size")
    parser.add_argument("--swaps", type=int, default=200, help="enough of them end a size")
    parser.add_argument("--turns", type=int, default=100, help="most turns of each kind")
    args = parser.parse_args()
    if args.make:
        make(args.make, args.sizes)
    runtime = library()
    about = f"Python {sys.version.split()[0]}, C library {runtime and runtime.version}"
    for size in args.sizes if args.policies else []:
        rate_hz = args.rate_hz or RATES_HZ.get(size, 50.0)
        found = measure(args.policies / size, rate_hz, args.swaps, args.turns)
        print(json.dumps({"size": size, "rate_hz": rate_hz, "on": about, **found}))


if __name__ == "__main__":
    main()

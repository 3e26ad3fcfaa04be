"""``wm bench policy`` measures the time of one policy step, paced at a control rate.

Pacing matters: between two ticks of a robot the caches go cold, and a tight loop is up to three
times faster.  Variants take turns of about a second, so that other work on the machine affects
all of them alike.  Each uses one thread.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from pydantic import Field

from wm_core import presets
from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import Contestant, ContestantSettings, contestants
from wm_core.bench.report import Report
from wm_core.contract.conformance import random_obs
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep

TURN = 50  #: ticks that one variant runs before the next one does
WARM = 10  #: ticks of each variant that are not counted
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}

Variant = Literal["torch", "fp32"]
Tick = Callable[[Obs, np.ndarray], np.ndarray]  #: obs, (A,) previous action -> (A,) action
#: inputs and actions of untrained policies: one 64x64 RGB camera, two actions
SPEC = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))


class PolicyBenchSettings(ContestantSettings):
    """Measure the latency of a policy step, paced at a control rate, on one thread."""

    variants: tuple[Variant, ...] = Field(
        ("fp32", "torch"), description="What to measure: fp32 is the exported file"
    )
    policy: Path | None = Field(
        None, description="Folder of an exported policy to measure instead"
    )
    rate_hz: float = Field(50.0, gt=0, description="Steps per second that the policy takes")
    ticks: int = Field(1000, gt=0, description="Measured steps of each variant")


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(PolicyBenchSettings, args=list(argv), prog="wm bench policy")
    chosen = contestants(settings)
    torch.set_num_threads(1)
    with Report("wm bench policy", as_json=settings.json_) as report:
        if settings.policy is not None:
            runner = PolicyRunner.load(settings.policy)
            _measure(report, "file", {"fp32": _engine(runner)}, runner.spec, settings)
            return 0
        for contestant in chosen:
            report.progress(f"{contestant.name}: exporting")
            ticks = make_variants(contestant, settings.variants)
            _measure(report, contestant.name, ticks, SPEC, settings)
    return 0


def _measure(
    report: Report, name: str, ticks: Mapping[Variant, Tick], spec: Spec, how: PolicyBenchSettings
) -> None:
    report.progress(f"{name}: {how.ticks} ticks at {how.rate_hz:g} Hz each")
    for variant, took_s in measure(ticks, spec, how.ticks, how.rate_hz).items():
        for quantile, share in QUANTILES.items():
            value = float(np.quantile(took_s, share)) * 1e3
            report.add(f"policy/{name}/{variant}/{quantile}", value, "ms")


def make_variants(contestant: Contestant, names: Sequence[Variant]) -> dict[Variant, Tick]:
    """Make a step of an untrained agent in each of the variants."""
    config = presets.make(*contestant)
    agent = AgentCore(SPEC, config, generator=torch.Generator().manual_seed(0))
    ticks: dict[Variant, Tick] = {}
    for name in names:
        if name == "torch":
            ticks[name] = _eager(PolicyStep(agent, SPEC))
        else:
            file = PolicyExporter(agent, SPEC, config).export(0, 0, 0, golden_steps=1).onnx
            ticks[name] = _engine(PolicyRunner.from_bytes(file))
    return ticks


def measure(
    ticks: Mapping[Variant, Tick], spec: Spec, count: int, rate_hz: float
) -> dict[Variant, np.ndarray]:
    """Measure the seconds (count,) of each tick of each variant, at ``rate_hz``."""
    rng = np.random.default_rng(0)
    observations = [random_obs(spec, rng) for _ in range(TURN)]
    still = np.zeros(spec.action.size, np.float32)
    seconds: dict[Variant, list[float]] = {name: [] for name in ticks}
    for start in range(0, count, TURN):
        for name, tick in ticks.items():
            turn = _turn(tick, observations, still, min(TURN, count - start) + WARM, 1.0 / rate_hz)
            seconds[name] += turn[WARM:]
    return {name: np.array(of_variant) for name, of_variant in seconds.items()}


def _turn(
    tick: Tick, observations: Sequence[Obs], action: np.ndarray, count: int, period_s: float
) -> list[float]:
    due, took = time.perf_counter(), []
    for i in range(count):
        due += period_s
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        action = tick(observations[i % len(observations)], action)
        took.append(time.perf_counter() - start)
    return took


def _engine(runner: PolicyRunner) -> Tick:
    engine = PolicyEngine(runner, seed=0)
    return lambda obs, sent: engine.act(obs, sent).action


def _eager(step: PolicyStep) -> Tick:
    """Make the same step in torch, as a node without ONNX Runtime would take it."""
    shapes = {info.name: info.shape for info in step.inputs()}
    outputs = [info.name for info in step.outputs()]
    carry = {pair.input: torch.zeros(shapes[pair.input]) for pair in step.carry}
    rng, first = torch.Generator().manual_seed(0), torch.tensor([False])

    @torch.inference_mode()
    def tick(obs: Obs, sent: np.ndarray) -> np.ndarray:
        nonlocal carry
        feed = {key: torch.from_numpy(value)[None] for key, value in obs.items()} | carry
        feed |= {"prev_action": torch.from_numpy(sent)[None], "is_first": first}
        feed |= {name: torch.rand(shapes[name], generator=rng) for name in step.noise}
        out = dict(zip(outputs, step(*(feed[name] for name in shapes)), strict=True))
        carry = {pair.input: out[pair.output] for pair in step.carry}
        return out["action"][0].numpy()

    return tick

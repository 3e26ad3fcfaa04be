"""``wm bench policy`` measures the time of one policy step, paced at a control rate.

Pacing matters: between two ticks of a robot the caches go cold, and a tight loop is up to three
times faster.  Variants take turns of about a second, so that other work on the machine affects
all of them alike.  Each uses one thread.  What is timed lies between an observation and its
action: in the variants ``split`` half of the step has been run before, as robots do, and in
``dry`` the other half once more on the last observation.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import tyro
from pydantic import Field

from wm_core.agents.agent import AgentCore
from wm_core.bench.contestants import Contestant, ContestantSettings, contestants
from wm_core.bench.report import Report
from wm_core.contract.conformance import random_obs
from wm_core.contract.runner import PolicyEngine, PolicyRunner
from wm_core.contract.spec import ActionSpec, Obs, Spec
from wm_core.exporting.exporter import PolicyExporter
from wm_core.exporting.policy_module import PolicyStep
from wm_core.exporting.quantize import quantize
from wm_core.presets.micro import changed

TURN = 50  #: ticks that one variant runs before the next one does
WARM = 10  #: ticks of each variant that are not counted
DRY_S = 0.002  #: how long before an observation the dry run begins, beside its own time
CALIBRATION = 32  #: steps on noise that the 8-bit variants are calibrated on
QUANTILES = {"p50_ms": 0.5, "p99_ms": 0.99, "p999_ms": 0.999}

Variant = Literal[
    "torch", "fp32", "split_fp32", "split_dry_fp32", "int8", "split_int8", "split_dry_int8"
]
Convolutions = Literal["", "k5pool", "k5s2", "k4s2"]
#: inputs and actions of untrained policies: one 64x64 RGB camera, two actions
SPEC = Spec(action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))


class PolicyBenchSettings(ContestantSettings):
    """Measure the latency of a policy step, paced at a control rate, on one thread."""

    variants: tuple[Variant, ...] = Field(
        ("fp32", "split_fp32", "torch"),
        description="What to measure: fp32 or int8 files, whole, split, split with a dry run",
    )
    policy: Path | None = Field(
        None, description="Folder of an exported policy to measure instead"
    )
    encoder: Convolutions = Field(
        "", description="Convolutions of each network; empty: its own kind"
    )
    rate_hz: tuple[float, ...] = Field((50.0,), description="Steps per second, one or several")
    ticks: int = Field(1000, gt=0, description="Measured steps of each variant")


class Ticker:
    """One variant of a step: ``act`` is timed, the other two are not."""

    warms = False

    def act(self, obs: Obs, sent: np.ndarray) -> np.ndarray:
        """(A,) action for an observation, ``sent`` (A,) being the last one."""
        raise NotImplementedError

    def after(self, sent: np.ndarray) -> None:
        """Do what follows once the action ``sent`` (A,) has left."""

    def before(self) -> None:
        """Do what precedes an observation."""


class FileTicker(Ticker):
    """A step of an exported file.

    Args:
        runner: the file.
        splits: run half of each step ahead, and leave out ``value``, as robots do.
        warms: run the other half once more before each observation.
    """

    def __init__(self, runner: PolicyRunner, *, splits: bool = False, warms: bool = False) -> None:
        estimates = ("surprise",) if splits else ("value", "surprise")
        self._engine = PolicyEngine(runner, seed=0, estimates=estimates)
        self._splits, self.warms = splits, warms

    def act(self, obs: Obs, sent: np.ndarray) -> np.ndarray:
        return self._engine.act(obs, sent).action

    def after(self, sent: np.ndarray) -> None:
        if self._splits:
            self._engine.prepare(sent)

    def before(self) -> None:
        self._engine.warm()


class TorchTicker(Ticker):
    """The same step in torch, as a node without ONNX Runtime would take it.

    Args:
        step: the policy.
    """

    def __init__(self, step: PolicyStep) -> None:
        self._step, self._shapes = step, {info.name: info.shape for info in step.inputs()}
        self._outputs = [info.name for info in step.outputs()]
        self._carry = {pair.input: torch.zeros(self._shapes[pair.input]) for pair in step.carry}
        self._rng, self._first = torch.Generator().manual_seed(0), torch.tensor([False])

    @torch.inference_mode()
    def act(self, obs: Obs, sent: np.ndarray) -> np.ndarray:
        feed = {key: torch.from_numpy(value)[None] for key, value in obs.items()} | self._carry
        feed |= {"prev_action": torch.from_numpy(sent)[None], "is_first": self._first}
        shapes, rng = self._shapes, self._rng
        feed |= {name: torch.rand(shapes[name], generator=rng) for name in self._step.noise}
        values = self._step(*(feed[name] for name in shapes))
        out = dict(zip(self._outputs, values, strict=True))
        self._carry = {pair.input: out[pair.output] for pair in self._step.carry}
        action: np.ndarray = out["action"][0].numpy()
        return action


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(PolicyBenchSettings, args=list(argv), prog="wm bench policy")
    chosen = contestants(settings)
    torch.set_num_threads(1)
    with Report("wm bench policy", as_json=settings.json_) as report:
        if settings.policy is not None:
            runner = PolicyRunner.load(settings.policy)
            _measure(report, "file", _of_file(runner), runner.spec, settings)
            return 0
        for contestant in chosen:
            report.progress(f"{contestant.name}: exporting")
            tickers = make_variants(contestant, settings.variants, settings.encoder)
            _measure(report, contestant.name, tickers, SPEC, settings)
    return 0


def _measure(
    report: Report,
    name: str,
    tickers: Mapping[str, Ticker],
    spec: Spec,
    how: PolicyBenchSettings,
) -> None:
    for rate_hz in how.rate_hz:
        report.progress(f"{name}: {how.ticks} ticks at {rate_hz:g} Hz each")
        at = f"{rate_hz:g}hz/" if len(how.rate_hz) > 1 else ""
        for variant, took_s in measure(tickers, spec, how.ticks, rate_hz).items():
            for quantile, share in QUANTILES.items():
                value = float(np.quantile(took_s, share)) * 1e3
                report.add(f"policy/{name}/{variant}/{at}{quantile}", value, "ms")


def make_variants(
    contestant: Contestant, names: Sequence[Variant], encoder: Convolutions = ""
) -> dict[str, Ticker]:
    """Make a step of an untrained agent in each of the variants."""
    config = contestant.config()
    if encoder:
        config = changed(config, world={"encoder": {"kind": encoder}})
    agent = AgentCore(SPEC, config, generator=torch.Generator().manual_seed(0))
    files: dict[str, bytes] = {}
    if set(names) != {"torch"}:
        files["fp32"] = PolicyExporter(agent, SPEC, config).export(0, 0, 0, golden_steps=1).onnx
    if any(name.endswith("int8") for name in names):
        files["int8"] = quantize(files["fp32"], _calibration(files["fp32"]))
    tickers: dict[str, Ticker] = {}
    for name in names:
        if name == "torch":
            tickers[name] = TorchTicker(PolicyStep(agent, SPEC))
            continue
        splits, warms = name.startswith("split"), "dry" in name
        runner = PolicyRunner.from_bytes(files[name.rpartition("_")[2]], halves=splits)
        tickers[name] = FileTicker(runner, splits=splits, warms=warms)
    return tickers


def _of_file(runner: PolicyRunner) -> dict[str, Ticker]:
    """The variants of a file that exists: as it is, and as robots run it."""
    ways = {"fp32": (False, False), "split_fp32": (True, False), "split_dry_fp32": (True, True)}
    kind = runner.card.quantized or "fp32"
    return {
        name.replace("fp32", kind): FileTicker(runner, splits=splits, warms=warms)
        for name, (splits, warms) in ways.items()
    }


def _calibration(model: bytes) -> list[dict[str, np.ndarray]]:
    """Every input (1, ...) by name of some steps on noise, each from the carry of the last."""
    runner, rng = PolicyRunner.from_bytes(model, halves=False), np.random.default_rng(0)
    carry, feeds = runner.initial_carry(), []
    for step in range(CALIBRATION):
        feed = {key: value[None] for key, value in random_obs(runner.spec, rng).items()}
        feed |= {"prev_action": runner.spec.action.random(rng)[None], **carry}
        feed["is_first"] = np.array([step == 0])
        for info in runner.card.inputs:
            if info.name in runner.card.noise:
                feed[info.name] = rng.random(info.shape, np.float32)
        feeds.append(feed)
        out = runner.call(feed)
        carry = {pair.input: out[pair.output] for pair in runner.card.carry}
    return feeds


def measure(
    tickers: Mapping[str, Ticker], spec: Spec, count: int, rate_hz: float
) -> dict[str, np.ndarray]:
    """Measure the seconds (count,) of each tick of each variant, at ``rate_hz``."""
    rng = np.random.default_rng(0)
    observations = [random_obs(spec, rng) for _ in range(TURN)]
    still = np.zeros(spec.action.size, np.float32)
    seconds: dict[str, list[float]] = {name: [] for name in tickers}
    for start in range(0, count, TURN):
        for name, ticker in tickers.items():
            steps = min(TURN, count - start) + WARM
            turn = _turn(ticker, observations, still, steps, 1.0 / rate_hz)
            seconds[name] += turn[WARM:]
    return {name: np.array(of_variant) for name, of_variant in seconds.items()}


def _turn(
    ticker: Ticker, observations: Sequence[Obs], action: np.ndarray, count: int, period_s: float
) -> list[float]:
    took: list[float] = []
    due = time.perf_counter()
    for i in range(count):
        due += period_s
        if ticker.warms:
            lead_s = DRY_S + (took[-1] if took else 0.0)
            time.sleep(max(0.0, due - lead_s - time.perf_counter()))
            ticker.before()
        time.sleep(max(0.0, due - time.perf_counter()))
        start = time.perf_counter()
        action = ticker.act(observations[i % len(observations)], action)
        took.append(time.perf_counter() - start)
        ticker.after(action)
    return took

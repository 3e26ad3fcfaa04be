"""``wm bench sim`` measures pixel observations per second against dm_control's own rendering.

An observation is one agent step: two control steps and one image. Both sides take the same actions
through the same camera, in turns of a fraction of a second, so that other work on the machine
affects both alike. dm_control renders in a process of its own, since it and MuJoCo's contexts each
keep track of the current OpenGL context. It runs with its defaults, except that Mesa gets no
worker threads on either side, which makes dm_control cheaper per core.
"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import BenchSettings, Report
from wm_core.contract.errors import SettingsError, WmError, nearest
from wm_core.contract.extras import install_extras

HOME = "sim"
IMAGE_SIZE = 64
TWO_CORES_TASK = "cartpole_swingup"
TWO_CORES_STEPS = 1500
ANSWER_S = 120.0  #: seconds to wait for a process that measures


class SimBenchSettings(BenchSettings):
    """Measure pixel observations per second, beside dm_control's own rendering."""

    tasks: tuple[str, ...] = Field((), description="Tasks to measure; none: all twenty")
    rounds: int = Field(5, gt=0, description="Turns of each side; figures are medians")
    turn_s: float = Field(0.25, gt=0, description="Seconds that one turn lasts, about")
    clock: Literal["cpu", "wall"] = Field(
        "cpu", description="Clock to use; cpu counts all threads and no waiting"
    )
    two_cores: bool = Field(True, description="Also measure the gain by a second process")


class Turn(NamedTuple):
    """Seconds that a number of observations took."""

    cpu: float
    wall: float


Side = Callable[[int], Turn]  #: takes so many agent steps and measures them


def run(argv: Sequence[str]) -> int:
    """Measure and report; returns the exit status."""
    settings = tyro.cli(SimBenchSettings, args=list(argv), prog="wm bench sim")
    known = suite_tasks()
    for name in settings.tasks:
        if name not in known:
            raise SettingsError(nearest(name, known, what="dm_control task"))
    speedups: dict[str, float] = {}
    with Report("wm bench sim", as_json=settings.json_) as report:
        for name in settings.tasks or known:
            ours, theirs = measure(name, settings)
            report.add(f"sim/{name}/obs_per_s", statistics.median(ours), "obs/s")
            report.add(f"sim/{name}/dm_control_obs_per_s", statistics.median(theirs), "obs/s")
            ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
            speedups[name] = statistics.median(ratios)
            report.add(f"sim/{name}/speedup", speedups[name], "x")
            report.progress(f"{name}: {statistics.median(ours):,.0f} obs/s, {ratios[0]:.0f}x")
        report.add("sim/geomean/speedup", statistics.geometric_mean(speedups.values()), "x")
        lowest = min(speedups, key=speedups.__getitem__)
        report.add(f"sim/lowest/{lowest}/speedup", speedups[lowest], "x")
        if settings.two_cores:
            report.add("sim/two_cores_ratio", two_cores_ratio(settings.rounds), "x")
    return 0


def suite_tasks() -> list[str]:
    """List the dm_control tasks that ``sim`` registers."""
    try:
        importlib.import_module(HOME)  # by name: this package never imports it
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"module {error.name!r} is not installed: {install_extras('sim')}"
        ) from error
    specs = gymnasium.registry.values()
    return sorted(spec.id for spec in specs if spec.entry_point == "sim.suite:SuiteTask")


def measure(name: str, settings: SimBenchSettings) -> tuple[list[float], list[float]]:
    """Measure observations per second of our side and of dm_control's, one number per round."""
    env = gymnasium.make(f"{HOME}:{name}", image_size=IMAGE_SIZE)
    metadata = env.unwrapped.metadata
    rates: tuple[list[float], list[float]] = ([], [])
    with _process(dm_control_side, *metadata["suite"], metadata["camera"]) as theirs:
        sides: tuple[Side, ...] = (
            our_side(env),
            lambda count: theirs.submit(_turn, count).result(ANSWER_S),
        )
        counts = []
        for side in sides:
            side(3)  # the first images make the context and load the textures
            counts.append(max(3, round(settings.turn_s / (side(5).wall / 5))))
        for _ in range(settings.rounds):
            for side, count, rate in zip(sides, counts, rates, strict=True):
                rate.append(count / getattr(side(count), settings.clock))
    env.close()
    return rates


def our_side(env: gymnasium.Env) -> Side:
    """Return a function that takes so many agent steps in ``env`` and measures them."""
    action = _actions(env.action_space.low, env.action_space.high)  # type: ignore[attr-defined]
    env.reset(seed=0)

    def step() -> np.ndarray:
        obs, _, terminated, truncated, _ = env.step(next(action))
        if terminated or truncated:
            env.reset()
        return obs["image"]

    return lambda count: _timed(step, count)


def dm_control_side(domain: str, task: str, camera: int) -> Side:
    """Return the same for dm_control's own environment and rendering, with its default flags."""
    from dm_control import suite

    env = suite.load(domain, task, task_kwargs={"random": 0})
    spec = env.action_spec()
    action = _actions(spec.minimum, spec.maximum)
    env.reset()

    def step() -> np.ndarray:
        held = next(action)
        env.step(held)
        ended = env.step(held).last()
        image = env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=camera)
        if ended:
            env.reset()
        return image

    return lambda count: _timed(step, count)


def _timed(step: Callable[[], np.ndarray], count: int) -> Turn:
    start = Turn(time.process_time(), time.perf_counter())
    images = [step() for _ in range(count)]
    turn = Turn(time.process_time() - start.cpu, time.perf_counter() - start.wall)
    _check_vary(images)
    return turn


def two_cores_ratio(rounds: int) -> float:
    """Measure observations per second of two processes at once over those of one, by the wall."""
    count, ratios = TWO_CORES_STEPS, []
    with _process(_two_cores_side) as one, _process(_two_cores_side) as other:
        for process in (one, other):
            process.submit(_turn, 100).result(ANSWER_S)
        for _ in range(rounds):
            alone = count / one.submit(_turn, count).result(ANSWER_S).wall
            both = [process.submit(_turn, count) for process in (one, other)]
            ratios.append(sum(count / turn.result(ANSWER_S).wall for turn in both) / alone)
    return statistics.median(ratios)


def _two_cores_side() -> Side:
    return our_side(gymnasium.make(f"{HOME}:{TWO_CORES_TASK}", image_size=IMAGE_SIZE))


_side: Side  #: of a process that ``_process`` started


def _process(make_side: Callable[..., Side], *args: Any) -> ProcessPoolExecutor:
    """Start a process that makes a side; ``_turn`` measures it there."""
    spawn = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, spawn, initializer=_begin, initargs=(make_side, *args))


def _begin(make_side: Callable[..., Side], *args: Any) -> None:
    global _side
    _side = make_side(*args)


def _turn(count: int) -> Turn:
    return _side(count)


def _actions(low: np.ndarray, high: np.ndarray) -> Iterator[np.ndarray]:
    """Yield uniformly random actions (A,), the same for both sides, drawn in advance."""
    actions = np.random.default_rng(0).uniform(low, high, (512, *low.shape))
    while True:
        yield from actions


def _check_vary(images: Sequence[np.ndarray]) -> None:
    """Refuse images (H, W, 3) that are blank or all the same: such a speed means nothing."""
    if len(images) > 1 and ((images[0] == images[-1]).all() or np.ptp(images[-1]) == 0):
        raise WmError("the images do not vary, so they were not rendered; nothing was measured")

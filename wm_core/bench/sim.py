"""``wm bench sim``: pixel observations per second against dm_control's own rendering.

An observation is one agent step: two control steps and one image. Both sides take the same actions
through the same camera, in turns of a fraction of a second, so that whatever else the machine does
meets both alike. dm_control renders in a process of its own, since it and MuJoCo's contexts keep
track of the current OpenGL context apart from one another. Its side runs as it comes, except that
Mesa gets no worker threads on either side, which makes dm_control cheaper per core.
"""

from __future__ import annotations

import importlib
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Annotated, Any, Literal, NamedTuple

import gymnasium
import numpy as np
import tyro
from pydantic import Field

from wm_core.bench.report import Report
from wm_core.contract.errors import SettingsError, WmError, nearest
from wm_core.contract.spec import Frozen

HOME = "sim"
IMAGE_SIZE = 64
TWO_CORES_TASK = "cartpole_swingup"
ANSWER_S = 120.0  #: a process that takes longer to answer has died


class SimBenchSettings(Frozen):
    """Measure pixel observations per second of the simulator against dm_control's rendering."""

    json_: Annotated[bool, tyro.conf.arg(name="json")] = False  #: JSON lines instead of a table
    tasks: tuple[str, ...] = ()  #: only these; all twenty without it
    rounds: int = Field(5, gt=0)  #: turns of each side; the median counts
    turn_s: float = Field(0.25, gt=0)  #: about how long a turn lasts
    #: what is counted: CPU time of all threads of the process, which is what "per core" means
    #: where rendering is done by the CPU and other work cannot distort, or time on the wall
    clock: Literal["cpu", "wall"] = "cpu"
    two_cores: bool = True  #: also measure what a second process adds (on the wall)


class Turn(NamedTuple):
    """How long a number of observations took, in seconds."""

    cpu: float
    wall: float


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
        lowest = min(speedups, key=lambda name: speedups[name])
        report.add(f"sim/lowest/{lowest}/speedup", speedups[lowest], "x")
        if settings.two_cores:
            report.add("sim/two_cores_ratio", two_cores_ratio(settings), "x")
    return 0


def suite_tasks() -> list[str]:
    """The names of the dm_control tasks that ``sim`` registers."""
    try:
        importlib.import_module(HOME)  # by name: this package never imports it
    except ModuleNotFoundError as error:
        raise SettingsError(
            f"module {error.name!r} is not installed: pip install 'wm_ros[sim]'"
        ) from error
    specs = gymnasium.registry.values()
    return sorted(spec.id for spec in specs if spec.entry_point == "sim.suite:SuiteTask")


def measure(name: str, settings: SimBenchSettings) -> tuple[list[float], list[float]]:
    """Observations per second of our side and of dm_control's, one number per round."""
    env = gymnasium.make(f"{HOME}:{name}", image_size=IMAGE_SIZE)
    metadata = env.unwrapped.metadata
    rates: tuple[list[float], list[float]] = ([], [])
    with _elsewhere(_serve_dm_control, *metadata["suite"], metadata["camera"]) as theirs:
        sides: tuple[Callable[[int], Turn], ...] = (our_side(env), theirs)
        counts = []
        for side in sides:
            side(3)  # the first images make the context and load the textures
            counts.append(max(3, round(settings.turn_s / (side(5).wall / 5))))
        for _ in range(settings.rounds):
            for side, count, rate in zip(sides, counts, rates, strict=True):
                rate.append(count / getattr(side(count), settings.clock))
    env.close()
    return rates


def our_side(env: gymnasium.Env) -> Callable[[int], Turn]:
    """A function that takes so many agent steps in ``env`` and says how long they took."""
    action = _actions(env.action_space.low, env.action_space.high)  # type: ignore[attr-defined]
    env.reset(seed=0)

    def turn(count: int) -> Turn:
        images = []
        start = Turn(time.process_time(), time.perf_counter())
        for _ in range(count):
            obs, _, terminated, truncated, _ = env.step(next(action))
            images.append(obs["image"])
            if terminated or truncated:
                obs, _ = env.reset()
        took = _since(start)
        _check_vary(images)
        return took

    return turn


def dm_control_side(domain: str, task: str, camera: int) -> Callable[[int], Turn]:
    """The same for dm_control's own environment and rendering, with its default flags."""
    from dm_control import suite

    env = suite.load(domain, task, task_kwargs={"random": 0})
    spec = env.action_spec()
    action = _actions(spec.minimum, spec.maximum)
    env.reset()

    def turn(count: int) -> Turn:
        images = []
        start = Turn(time.process_time(), time.perf_counter())
        for _ in range(count):
            held = next(action)
            env.step(held)
            ended = env.step(held).last()
            images.append(env.physics.render(IMAGE_SIZE, IMAGE_SIZE, camera_id=camera))
            if ended:
                env.reset()
        took = _since(start)
        _check_vary(images)
        return took

    return turn


def two_cores_ratio(settings: SimBenchSettings) -> float:
    """Observations per second of two processes at once over those of one, on the wall."""
    count = 1500
    ratios = []
    with _elsewhere(_serve_ours) as one, _elsewhere(_serve_ours) as other:
        one(100), other(100)
        for _ in range(settings.rounds):
            alone = count / one(count).wall
            one.ask(count)
            other.ask(count)
            ratios.append((count / one.answer().wall + count / other.answer().wall) / alone)
    return statistics.median(ratios)


class _Elsewhere:
    """A side of the comparison that lives in a process of its own."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __call__(self, count: int) -> Turn:
        self.ask(count)
        return self.answer()

    def ask(self, count: int) -> None:
        self._pipe.send_bytes(str(count).encode())

    def answer(self) -> Turn:
        if not self._pipe.poll(ANSWER_S):
            raise WmError(f"a measuring process gave no answer within {ANSWER_S} s")
        try:
            cpu, wall = np.frombuffer(self._pipe.recv_bytes())
        except EOFError as error:
            raise WmError("a measuring process died; its last words are above") from error
        return Turn(float(cpu), float(wall))


@contextmanager
def _elsewhere(serve: Callable[..., None], *args: Any) -> Iterator[_Elsewhere]:
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=serve, args=(there, *args), daemon=True)
    process.start()
    there.close()
    try:
        yield _Elsewhere(here)
    finally:
        here.close()  # which ends its loop
        process.join(timeout=10)
        if process.is_alive():
            process.kill()
            process.join()


def _serve_dm_control(pipe: Connection, domain: str, task: str, camera: int) -> None:
    _serve(pipe, dm_control_side(domain, task, camera))


def _serve_ours(pipe: Connection) -> None:
    _serve(pipe, our_side(gymnasium.make(f"{HOME}:{TWO_CORES_TASK}", image_size=IMAGE_SIZE)))


def _serve(pipe: Connection, side: Callable[[int], Turn]) -> None:
    while True:
        try:
            count = int(pipe.recv_bytes())
        except EOFError:
            return
        pipe.send_bytes(np.array(side(count)).tobytes())


def _actions(low: np.ndarray, high: np.ndarray) -> Iterator[np.ndarray]:
    """Uniformly random actions (A,), the same for both sides, drawn before they are timed."""
    drawn = np.random.default_rng(0).uniform(low, high, (512, *low.shape))
    while True:
        yield from drawn


def _since(start: Turn) -> Turn:
    return Turn(time.process_time() - start.cpu, time.perf_counter() - start.wall)


def _check_vary(images: Sequence[np.ndarray]) -> None:
    """Refuse images (H, W, 3) that show nothing or stand still: such a speed means nothing."""
    if len(images) > 1 and ((images[0] == images[-1]).all() or np.ptp(images[-1]) == 0):
        raise WmError("the images do not vary, so they were not rendered; nothing was measured")

"""``wm train``: train in simulation, on what robots send, or on a finished store."""

from __future__ import annotations

import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tyro

from wm_core.cli import presets as presets_verb
from wm_core.cli.first_options import TRAIN
from wm_core.cli.progress import ProgressView
from wm_core.cli.screen import complain
from wm_core.cli.settings import parse, peek
from wm_core.config import Config
from wm_core.library.goals import MICRO_MINUTES, ending, goals_in_words, with_goal
from wm_core.library.processes import is_other_worker, work_for_first
from wm_core.library.run_folder import TrainSettings
from wm_core.library.train import first_settings, run_training
from wm_core.training import checkpoint
from wm_core.training.estimate import Forecast
from wm_core.training.status import Status


def main(argv: Sequence[str]) -> int:
    """Train until the goal or a signal; returns the exit status."""
    # torch's own exporter trips over torch's own deprecation
    warnings.filterwarnings("ignore", "`isinstance.treespec, LeafSpec", FutureWarning)
    if is_other_worker():
        store = peek(argv, "store").get("store")
        work_for_first(None if store is None else Path(store))
        return 0
    settings = train_settings(argv)
    stop = threading.Event()
    with stopping(stop), ProgressView(quiet=settings.quiet) as view:
        if settings.resume and not checkpoint.listed(settings.run):
            view.say(f"no checkpoint in {settings.run} yet: beginning a new run")
        view.say(goals_in_words(settings))
        end = run_training(settings, stop, on_status=reporter(view), tell=view.say)
    if not settings.quiet:
        _say_end(settings, end, stopped=stop.is_set())
    return 0


def train_settings(argv: Sequence[str]) -> TrainSettings:
    """The settings that ``argv`` asks for; a typo ends the process with status 2."""
    start = _start(argv)
    start = start.model_copy(update=with_registered(start, argv))
    start = with_goal(start, named(argv))
    return parse(
        TrainSettings, argv, verb="train", default=start, more=_origin(start), first=TRAIN
    )


def named(argv: Sequence[str]) -> set[str]:
    """The dotted names of the options in ``argv``, such as train.steps."""
    words = (word.partition("=")[0] for word in argv if word.startswith("--"))
    return {word.removeprefix("--").replace("-", "_") for word in words}


def reporter(view: ProgressView) -> Callable[[Status], None]:
    """Show each status, and say once how long the training will take."""
    forecast = Forecast(MICRO_MINUTES)

    def report(status: Status) -> None:
        view.show(status)
        text = forecast.say(status)
        if text:
            view.say(text)

    return report


def _say_end(settings: TrainSettings, end: Status, *, stopped: bool) -> None:
    last = checkpoint.listed(settings.run)[-1]
    found = ending(settings, end, stopped=stopped)
    complain(
        f"{'stopped' if stopped else 'done'} at update {end.updates} and step {end.agent_steps}: "
        f"{found.reason}; checkpoint {last}"
    )
    sys.stderr.writelines(f"{what + ':':<9} {command}\n" for what, command in found.commands)


def with_registered(start: Config, argv: Sequence[str]) -> dict[str, Any]:
    """The rooms of ``start`` with default settings of the registered parts that ``argv`` names."""
    rooms = {"world": start.world, "behavior": start.behavior, "replay": start.replay}
    return {name: settings.with_named(argv) for name, settings in rooms.items()}


def _start(argv: Sequence[str]) -> TrainSettings:
    """Defaults of the options: the settings of the run to resume, or the preset."""
    first = peek(argv, "preset", "size", "run", "config", "init-from")
    start = first_settings(
        Path(first.get("run", "run")),
        preset=first.get("preset", ""),
        size=first.get("size", ""),
        resume="--resume" in argv and "run" in first,
        config_file=Path(first["config"]) if "config" in first else None,
        init_from=first.get("init_from", ""),
    )
    return start if "run" in first else start.model_copy(update={"run": tyro.MISSING})


def _origin(start: TrainSettings) -> str:
    """Text for the help: which preset the defaults belong to, and their source."""
    about = presets_verb.about(start.preset)
    return f"The defaults below are those of {start.preset} in size {start.size}:\n\n{about}"


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """SIGINT and SIGTERM set ``stop``; a second one ends the process at once."""

    def on_signal(number: int, _: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        sys.stderr.write("\nstopping after this update; once more ends it at once\n")

    before = {n: signal.signal(n, on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

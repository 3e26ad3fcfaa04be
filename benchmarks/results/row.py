"""Make one row: train a preset, evaluate it, and time it as a robot would run it."""

from __future__ import annotations

import json
import math
import os
import shlex
import threading
from collections.abc import Sequence
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.results import question
from benchmarks.results.contest import Contest
from benchmarks.results.verbs import ROOT, Cut, Row, VerbFailed, Verbs, rounded
from wm_core import presets
from wm_core.bench.report import run_line
from wm_core.contract.card import PolicyCard
from wm_core.contract.errors import SettingsError
from wm_core.contract.files import read_json, write_durably
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.runner import PolicyRunner
from wm_core.library.run_folder import load_settings
from wm_core.link.trainer.policy_repository import PolicyRepository

RATE_HZ = 20.0  #: of a robot, at which a policy's step is timed
SMOOTHED = 10  #: episodes that a point of a curve is the mean of
POINTS = 60  #: of a curve, at most
PICTURE_BYTES = 120_000


def make_row(contest: Contest, stop: threading.Event) -> Row:
    """Train, evaluate and time one preset; a failure is written into the row.

    Raises:
        Cut: when it was stopped; the run folder is then as ``wm train`` left it.
    """
    run, verbs = contest.run, Verbs(contest.run / "logs", stop)
    run.mkdir(parents=True, exist_ok=True)
    load, code = os.getloadavg()[0], question.code_digest(ROOT)
    figures: Row = {}
    failed = None
    try:
        verbs("train", *contest.options, "--resume")
        if not is_done(run):
            raise Cut(f"{run} was stopped from elsewhere")
        figures |= judged(contest, verbs)
    except VerbFailed as error:
        failed = str(error)
    more = {"code": code, "failed": failed}
    return about(contest, load) | progress_of(run) | figures | more


def judged(contest: Contest, verbs: Verbs) -> Row:
    """Measure the return of the last policy of a finished run, and its cost on a robot."""
    run, episodes, ticks = contest.run, contest.settings.episodes, contest.settings.ticks
    repository = PolicyRepository(run / "policies")
    versions = repository.versions()
    file = repository.folder(versions[-1])
    trained = verbs.returns("--policy", str(file), episodes=episodes, name="trained")
    untrained = verbs.returns(
        "--policy", str(repository.folder(versions[0])), episodes=episodes, name="untrained"
    )
    paced = ("--rate-hz", f"{RATE_HZ:g}", "--ticks", str(ticks))
    _, *rows = verbs.json("bench", "policy", "--policy", str(file), *paced, name="latency")
    took = {row["name"].rsplit("/", 1)[1]: rounded(row["value"]) for row in rows}
    _, *steps = verbs.json("bench", "gradient", "--runs", str(run), name="gradient")
    gradient = {row["name"].rsplit("/", 1)[1]: rounded(row["value"]) for row in steps}
    if contest.picture is not None:
        verbs("show", "--run", str(run))
        shrink(run / "imagined.png", contest.picture)
    return {
        "trained": trained,
        "untrained": untrained,
        "latency": {"rate_hz": RATE_HZ, "ticks": ticks, **took},
        "file_bytes": PolicyFolder(file).onnx.stat().st_size,
        "carry_bytes": carry_bytes(PolicyRunner.load(file, verify_golden=False).card),
        "parameters": int(gradient.pop("parameters")),
        "gradient": [*gradient.values()],  # norm of d reward[k] / d action[0], k = 1 ..
    }


def carry_bytes(card: PolicyCard) -> int:
    """Bytes of what a robot keeps from one step to the next."""
    carried = {pair.input for pair in card.carry}
    return sum(
        math.prod(info.shape) * np.dtype(info.dtype).itemsize
        for info in card.inputs
        if info.name in carried
    )


def is_done(run: Path) -> bool:
    """Whether the training has used its time, or has all the steps that it may have."""
    status = json.loads((run / "status.json").read_text())
    return bool(
        status["cpu_s"] >= status["cpu_s_goal"]
        or status["agent_steps"] >= status["agent_steps_goal"]
    )


def about(contest: Contest, load: float) -> Row:
    """What was run, by which code, on what machine, beside what else."""
    here, settings = run_line(), contest.settings
    run = contest.run
    return {
        "preset": contest.preset,
        "seed": contest.seed,
        "label": contest.label,
        "task": contest.place.task,
        "place": contest.place.name,
        "size": contest.size,
        "minutes": settings.minutes,
        "parts": parts_of(run),
        "command": shlex.join(["wm", "train", *contest.options]),
        "commit": read_json(run / "settings.json").get("about", {}).get("commit", ""),
        "settings": question.settings_of(contest.options),
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": here["versions"],
        "cpu": here["cpu"],
        "cores": here["threads"]["cores"],
        "jobs": settings.jobs,
        "load": [round(load, 2), here["load_average"][0]],  # before and after
    }


def parts_of(run: Path) -> Row:
    """The parts of the system that ``run`` trained, in words; empty before it began."""
    try:
        return presets.row_of(load_settings(run).config)._asdict()
    except SettingsError:
        return {}


def progress_of(run: Path) -> Row:
    """How far a run came and at what cost, and its curve, from its metrics."""
    status, path = read_json(run / "status.json"), run / "metrics.jsonl"
    lines = [json.loads(x) for x in path.read_text().splitlines()] if path.exists() else []
    return {
        "updates": status.get("updates", 0),
        "agent_steps": status.get("agent_steps", 0),
        "episodes": status.get("episodes", 0),
        "cpu_minutes": round(status.get("cpu_s", 0.0) / 60, 2),
        "cpu_s_per_update": cpu_s_per_update(lines),
        "curve": curve(lines),
    }


def cpu_s_per_update(lines: Sequence[Row]) -> float | None:
    """Seconds of an update with everything around it, over the second half of the updates."""
    if not lines:
        return None
    last = lines[-1]
    half = next(line for line in lines if 2 * line["updates"] >= last["updates"])
    updates = last["updates"] - half["updates"]
    return rounded((last["cpu_s"] - half["cpu_s"]) / updates) if updates else None


def curve(lines: Sequence[Row], window: int = SMOOTHED, most: int = POINTS) -> Row:
    """Returns of training episodes, each the mean of the last ``window``, in few points."""
    ended = [line for line in lines if line.get("episode/return") is not None]
    totals = [line["episode/return"] for line in ended]
    means = [float(np.mean(totals[max(0, i + 1 - window) : i + 1])) for i in range(len(totals))]
    chosen = np.unique(np.linspace(0, len(ended) - 1, min(most, len(ended))).round().astype(int))
    return {
        "window": window,
        "cpu_minutes": [round(ended[i]["cpu_s"] / 60, 2) for i in chosen],
        "updates": [ended[i]["updates"] for i in chosen],
        "agent_steps": [ended[i]["agent_steps"] for i in chosen],
        "return": [rounded(means[i]) for i in chosen],
    }


def shrink(source: Path, target: Path, most: int = PICTURE_BYTES) -> None:
    """Write the picture ``source`` as a PNG of less than ``most`` bytes, smaller if it must be."""
    image = Image.open(source).convert("RGB")
    for colours, scale in ((256, 1.0), (64, 1.0), (64, 0.75), (64, 0.5), (32, 0.33), (16, 0.2)):
        size = (round(image.width * scale), round(image.height * scale))
        small, out = image.resize(size, Image.Resampling.BOX).quantize(colours), BytesIO()
        small.save(out, "PNG", optimize=True)
        if out.tell() < most:
            break
    write_durably(target, out.getvalue())

"""Runs the campaign: one fault after another, a check after each, an account at the end."""

from __future__ import annotations

import json
import os
import platform
import random
import subprocess
import time
from collections import Counter
from pathlib import Path

from pydantic import BaseModel, Field

from benchmarks.chaos.account import (
    Account,
    check_acknowledged,
    check_sent,
    check_session,
    check_store,
)
from benchmarks.chaos.faults import FAULTS, spool_session
from benchmarks.chaos.steps import ProgressFile
from benchmarks.chaos.world import REPOSITORY, Stuck, World, wait_until


class Chaos(BaseModel):
    """Break robots, service, disks and network; account for every step afterwards."""

    root: Path = Path("runs/chaos")  #: folder of the campaign; it must not exist yet
    images: Path | None = Path("/dev/shm")  #: where the disks' files lie; None: no disks
    faults: int = 1000  #: how many to inject
    chunks: int = 100_000  #: how many have to be acknowledged
    robots: int = 6
    share: float = 0.02  #: of the requests that the proxy mistreats besides
    seed: int = 0
    kinds: tuple[str, ...] = ()  #: only these faults; empty for all that are possible here


class Report(BaseModel):
    """What a campaign did and found."""

    settings: Chaos
    commit: str = ""
    machine: str = ""
    took_s: float = 0.0
    load: tuple[float, float, float] = (0.0, 0.0, 0.0)
    injected: dict[str, int] = Field(default_factory=dict)  #: faults by kind
    proxy: dict[str, int] = Field(default_factory=dict)  #: mischiefs of the proxy by kind
    left_out: list[str] = Field(default_factory=list)  #: kinds that this machine does not permit
    reader_steps: int = 0  #: that the learner's reader saw
    account: Account = Field(default_factory=Account)

    @property
    def passed(self) -> bool:
        return not self.account.faults


def run(settings: Chaos) -> Report:
    """Run a campaign; what it finds stands in the report, and nothing is raised."""
    rng = random.Random(settings.seed)
    report = Report(settings=settings, commit=_commit(), machine=_machine())
    began_s = time.monotonic()
    world = World(settings.root, settings.images, settings.robots, settings.share, rng)
    kinds = settings.kinds or tuple(FAULTS)
    possible = [k for k in kinds if world.disks or not FAULTS[k].needs_disks]
    report.left_out = sorted(set(kinds) - set(possible))
    try:
        world.start_all()
        _inject(world, settings, possible, report)
        _finish(world, report)
    except Stuck as error:
        report.account.fault(str(error))
        report.account.fault("service: " + world.tail("service"))
    finally:
        report.proxy = dict(world.proxy.done)
        world.close()
    report.took_s = round(time.monotonic() - began_s, 1)
    report.load = os.getloadavg()
    return report


def _inject(world: World, settings: Chaos, kinds: list[str], report: Report) -> None:
    """Inject faults, each after its share of the chunks was acknowledged."""
    rng, injected = world.rng, Counter[str]()
    schedule = rng.sample(kinds, len(kinds))  # each once, then by weight
    weights = [FAULTS[kind].weight for kind in kinds]
    unique: set[str] = set()
    checked = 0

    def acknowledged() -> int:
        nonlocal checked
        new = world.proxy.acks.since(checked)
        checked += len(new)
        unique.update(path for path, _ in new)
        return len(unique)

    for number in range(settings.faults):
        kind = schedule[number] if number < len(schedule) else rng.choices(kinds, weights)[0]
        before = len(world.proxy.acks)
        injected[kind] += 1
        report.injected = dict(injected)
        try:
            FAULTS[kind].do(world)
            world.check_alive()
            share = (number + 1) * settings.chunks // settings.faults
            wait_until(
                lambda share=share, before=before: (
                    acknowledged() >= share and len(world.proxy.acks) > before
                ),
                f"chunk {share} to be acknowledged",
            )
            recent = world.proxy.acks.since(max(0, len(world.proxy.acks) - 40))
            check_acknowledged(world.store, _healthy(world, recent), report.account)
            for text in world.found:
                report.account.fault(f"fault {number}, {kind}: {text}")
            world.found.clear()
        except Stuck as error:
            raise Stuck(f"after fault {number}, {kind}: {error}") from error
        if number % 50 == 49:
            print(f"{number + 1} faults, {len(unique)} chunks", flush=True)


def _healthy(world: World, acks: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [ack for ack in acks if ack[0] not in world.injured]


def _finish(world: World, report: Report) -> None:
    """End every robot in order, let the reader catch up, end the service, and account."""
    account = report.account
    world.clock.jump_to(0)
    for name in world.names:
        world.end(name)
    last: Counter[str] = Counter()
    world.note_reader()

    def caught_up() -> bool:
        seen = ProgressFile(world.state / "reader.progress").read()
        last["steps"] = seen.put
        return seen.sealed >= _last_arrival(world)

    wait_until(caught_up, "the reader to see the last arrival")
    world.end("service")
    world.kill("reader")
    report.reader_steps = last["steps"]
    if last["steps"] < world.reader_seen:
        account.fault(f"the reader saw {world.reader_seen} steps once, and {last['steps']} later")
    faults = world.state / "reader.faults"
    if faults.exists():
        account.corrupt += len(faults.read_text().splitlines())
        account.fault(f"the reader saw: {faults.read_text()[:500]}")
    acks = world.proxy.acks.since(0)
    account.acknowledged = len({path for path, _ in acks})
    check_acknowledged(world.store, sorted(set(acks)), account)
    stored = check_store(world.store, account)
    for robot, session, progress in world.sessions():
        kept = spool_session(world, robot, session)
        check_sent(world.store, kept, set(world.injured), account)
        check_session(kept, progress, stored[robot, session], world.injured, account)
    if account.steps_pending:
        account.fault(f"{account.steps_pending} steps are still in a spool")
    if report.reader_steps != account.steps_stored:
        account.fault(
            f"the reader saw {report.reader_steps} steps, {account.steps_stored} are stored"
        )


def _last_arrival(world: World) -> int:
    from wm_core.store.ledger import LEDGER_NAME, Ledger

    ledger = Ledger(world.store / LEDGER_NAME)
    try:
        return ledger.counts()["arrival"]
    finally:
        ledger.close()


def _commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY).stdout.strip()


def _machine() -> str:
    return f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"


def write(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report.model_dump(mode="json"), indent=1) + "\n")

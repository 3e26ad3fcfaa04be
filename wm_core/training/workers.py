"""Starts the workers of a run, or joins those that torchrun started.

With ``--workers N`` the process that owns the run starts N - 1 others on the same machine.  Under
torchrun they exist already, on any number of machines, and nothing is started.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.errors import SettingsError, WmError
from wm_core.contract.files import json_text
from wm_core.contract.spec import Spec
from wm_core.nn.joined import Place
from wm_core.replay.sampler import Sampler
from wm_core.replay.settings import SELECTORS
from wm_core.store.reader import Store
from wm_core.training.allocator import keep_freed_memory
from wm_core.training.context_memory import ContextMemory
from wm_core.training.device import Device, choose_device
from wm_core.training.shared import Share, follow
from wm_core.training.team import START_S, Team, leave_fault

LOCAL = "127.0.0.1"
_LEAVE_S = 10.0  #: in which a worker that was sent away has to be gone


@dataclass(frozen=True)
class WorkerOrder:
    """What a worker has to know to compute its share."""

    config: Config
    spec: Spec
    store: Path
    device: Device
    threads: int
    answer_s: float  #: most seconds that one worker waits for another within an update

    def text(self) -> str:
        """The order as JSON."""
        values = {
            "config": self.config.model_dump(mode="json"),
            "spec": self.spec.model_dump(mode="json"),
            "store": str(self.store.absolute()),
            "device": self.device,
            "threads": self.threads,
            "answer_s": self.answer_s,
        }
        return json_text(values)

    @classmethod
    def of(cls, text: bytes) -> WorkerOrder:
        """Read what ``text`` wrote."""
        values = json.loads(text)
        config, spec = Config.model_validate(values["config"]), Spec.model_validate(values["spec"])
        return cls(**values | {"config": config, "spec": spec, "store": Path(values["store"])})


def place_of_torchrun() -> Place | None:
    """This process's place among those that torchrun started; None where it started none."""
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    return Place(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


def number_of_workers(asked: int, config: Config) -> int:
    """How many workers there will be, and whether they can share this system's updates.

    Args:
        asked: by ``--workers``.
        config: of the run.

    Raises:
        SettingsError: where torchrun started another number, where the windows of a batch cannot
            be shared evenly, and where a system does not learn by gradients alone.
    """
    place = place_of_torchrun()
    if place is not None and asked not in (1, place.size):
        raise SettingsError(
            f"expected --workers {place.size}, as many as torchrun started, got {asked}: leave it "
            "out"
        )
    workers, batch = (asked if place is None else place.size), config.replay.batch
    if batch % workers:
        near = [n for n in range(1, batch + 1) if batch % n == 0 and n <= workers]
        raise SettingsError(
            f"--replay.batch {batch} cannot be shared evenly by {workers} workers: expected a "
            f"multiple; take --workers {near[-1]} or --replay.batch {batch // workers * workers}"
            if batch >= workers
            else f"--workers {workers} is more than the {batch} windows of --replay.batch: take "
            f"at most {batch} workers"
        )
    if workers > 1 and config.behavior.learner == "evolution":
        raise SettingsError(
            "--workers has nothing to share in behavior.learner evolution, which searches without "
            "gradients: leave --workers out"
        )
    return workers


class Workers:
    """The other workers of a run that this process owns.

    Args:
        order: for each of them.
        count: all workers, this one included.
        device: of this one.

    Raises:
        WorkersFailed: where one does not begin.
    """

    def __init__(self, order: WorkerOrder, count: int, device: torch.device) -> None:
        self._processes: dict[int, BaseProcess] = {}
        try:
            meeting = self._started(count) if place_of_torchrun() is None else _meeting()
            meeting.set("order", order.text())
            self.team = Team(
                Place(0, count),
                meeting,
                device,
                numbers=2 * order.config.replay.batch,
                answer_s=order.answer_s,
                ended=self._ended,
            )
        except BaseException:
            self.close()
            raise

    def _started(self, count: int) -> dist.Store:
        """Start the others; returns where to meet them."""
        meeting = dist.TCPStore(
            LOCAL, 0, count, is_master=True, wait_for_workers=False,
            timeout=timedelta(seconds=START_S),
        )  # fmt: skip
        spawn = multiprocessing.get_context("spawn")
        for rank in range(1, count):
            process = spawn.Process(
                target=_work, args=(meeting.port, Place(rank, count)), name=f"worker-{rank}",
                daemon=True,
            )  # fmt: skip
            process.start()
            self._processes[rank] = process
        return meeting

    def _ended(self, rank: int) -> str:
        """How worker ``rank`` ended; empty while it runs, or where another machine has it."""
        process = self._processes.get(rank)
        code = None if process is None else process.exitcode
        if code is None:
            return ""
        return f"was ended by signal {-code}" if code < 0 else f"ended with status {code}"

    def close(self) -> None:
        """Send the others away and wait until they are gone; a second call does nothing."""
        if hasattr(self, "team"):
            self.team.close()
        for process in self._processes.values():
            process.join(_LEAVE_S)
            process.kill()
            process.join()
        self._processes.clear()


def _meeting() -> dist.Store:
    """Where the processes of torchrun meet."""
    store, _, _ = next(iter(dist.rendezvous("env://", timeout=timedelta(seconds=START_S))))
    return store


def _work(port: int, place: Place) -> None:
    """Be a worker that ``Workers`` started; whoever started it tells what goes wrong."""
    with contextlib.suppress(WmError, RuntimeError):
        meeting = dist.TCPStore(LOCAL, port, timeout=timedelta(seconds=START_S))
        work(meeting, place)
        return
    os._exit(1)


def work_under_torchrun(store: Path | None) -> None:
    """Be a worker that torchrun started, beside the first one, which owns the run.

    Args:
        store: this machine's copy of the run's store; None: where the first worker has it.

    Raises:
        WorkersFailed: where another worker is lost.
    """
    place = place_of_torchrun()
    assert place is not None
    work(_meeting(), place, store=store)


def work(meeting: dist.Store, place: Place, *, store: Path | None = None) -> None:
    """Compute a share of every update until the first worker sends this one away.

    Args:
        meeting: the store of torch at which the workers meet.
        place: of this process.
        store: to read from; None: that of the order.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the first worker decides when it ends
        signal.signal(number, signal.SIG_IGN)
    order = WorkerOrder.of(meeting.get("order"))
    torch.set_num_threads(order.threads)
    keep_freed_memory()
    config, replay = order.config, order.config.replay
    index = int(os.environ.get("LOCAL_RANK", place.rank))
    with _told(meeting, place):
        device = choose_device(order.device, index)
        if device.type == "cuda":
            torch.cuda.set_device(device)
        agent = AgentCore(order.spec, config, generator=torch.Generator().manual_seed(0))
        agent = agent.to(device)
        reader = Store(store or order.store, cache_bytes=replay.cache_bytes, spec=order.spec)
    with contextlib.closing(reader):
        reader.refresh()
        selector = SELECTORS.make(replay.selector)(
            replay.settings_of(replay.selector), np.random.default_rng(0)
        )
        sampler = Sampler(
            reader,
            batch=replay.batch // place.size,
            length=replay.length,
            rng=np.random.default_rng(0),
            online_queue=False,
            selector=selector,
        )
        numbers, answer_s = 2 * replay.batch, order.answer_s
        team = Team(place, meeting, device, numbers=numbers, answer_s=answer_s)
        memory, generator = ContextMemory(agent, replay.latents), torch.Generator(device)
        try:
            follow(Share(agent, reader, sampler, memory, generator, team))
        finally:
            team.close()


@contextlib.contextmanager
def _told(meeting: dist.Store, place: Place) -> Iterator[None]:
    """Leave an error of this worker's start for the first worker to tell."""
    try:
        yield
    except Exception as error:
        leave_fault(meeting, place.rank, error)
        raise

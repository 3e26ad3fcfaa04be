"""Lets contestants take updates in turns, each in a process of its own."""

from __future__ import annotations

import importlib
import multiprocessing
import resource
import time
from multiprocessing.connection import Connection
from typing import NamedTuple

import torch

from benchmarks.peers.sizes import SIZES

WARM = 2  #: updates of each that are not counted
PEERS = {"learner": "with_ours", "sheeprl": "with_sheeprl", "torchrl": "with_torchrl"}


class Turn(NamedTuple):
    """What one update took."""

    wall_s: float
    cpu_s: float
    peak_mb: float  #: of the process so far


def serve(connection: Connection, name: str, size: str, precision: str, threads: int) -> None:
    """Take an update for each word that comes in, until the other end closes."""
    torch.set_num_threads(threads)
    make = importlib.import_module(f"benchmarks.peers.{PEERS[name]}").make
    update, parameters = make(SIZES[size], precision)
    connection.send(parameters)
    while connection.recv():
        began = time.perf_counter(), time.process_time()
        update()
        wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        connection.send(Turn(wall, cpu, peak))


def measured(
    names: list[str], size: str, precision: str, threads: int, updates: int
) -> dict[str, tuple[int, list[Turn]]]:
    """Parameters and turns of each contestant, which take them in turns."""
    context, ends, found = multiprocessing.get_context("spawn"), {}, {}
    for name in names:
        ends[name], theirs = context.Pipe()
        args = (theirs, name, size, precision, threads)
        context.Process(target=serve, args=args, daemon=True).start()
        theirs.close()
        found[name] = (int(ends[name].recv()), [])
    for _ in range(WARM + updates):
        for name, end in ends.items():
            end.send(True)
            found[name][1].append(end.recv())
    for end in ends.values():
        end.send(False)
    return found

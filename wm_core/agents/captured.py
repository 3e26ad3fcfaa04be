"""Replays the whole update as one CUDA graph, so that launching its kernels costs nothing.

An update has fixed shapes and asks its device nothing, so it can be recorded once: losses,
backward pass and the optimisers' steps, over buffers that each new batch is copied into.  What
Python does beside it (counting updates, moving target networks) stays outside.  Where recording
fails, updates go on as they were.

This has not been run on a GPU: tests hold that updates over the buffers are those without.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Generator, Tensor

from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch
from wm_core.world.base import Carry
from wm_core.world.latent import Latent

log = logging.getLogger(__name__)

WARM = 3  #: updates before one is recorded; the first make the optimisers' state
Taken = tuple[dict[str, Tensor], Latent]  #: what ``AgentCore.update`` gives
TakesStep = Callable[[], Taken]
#: makes of a step what repeats it; the step is not run yet
Capture = Callable[[TakesStep, Generator], TakesStep]


def cuda_graph(step: TakesStep, generator: Generator) -> TakesStep:
    """Record ``step`` without running it; what is returned runs it, and gives the same tensors.

    Args:
        step: whose inputs stay in their places.
        generator: of every draw in it.
    """
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        given = step()

    def replay() -> Taken:
        graph.replay()
        return given

    return replay


class CapturedUpdate:
    """Takes the updates of an agent, recorded as soon as they are alike.

    It is recorded anew where the stage of the training or the shapes of a batch change.

    Args:
        agent: on its device.
        capture: records a step.
    """

    def __init__(self, agent: AgentCore, capture: Capture = cuda_graph) -> None:
        self._agent, self._capture = agent, capture
        on_gpu = agent.device.type == "cuda"
        self._stream = torch.cuda.Stream() if on_gpu else None
        self.failed = False  #: recording was not possible: every update is an ordinary one
        self.forget()

    def forget(self) -> None:
        """Record anew: the agent's tensors lie elsewhere, as after loading a checkpoint."""
        self._key: Any = None
        self._replay: TakesStep | None = None
        self._ordinary = 0  # updates still to take before one is recorded

    def __call__(self, batch: Batch[Tensor], context: Carry | None, generator: Generator) -> Taken:
        """Take one update, as ``AgentCore.update`` does, from (B, T) ``batch``."""
        inputs = _tensors(batch, context)
        key = (self._agent.stage(), context is None, [(t.shape, t.dtype) for t in inputs])
        if key != self._key:
            self.forget()
            self._key, self._ordinary = key, WARM
        with self._aside():
            if self._replay is None and not self._ordinary and not self.failed:
                self._record(batch, context, generator)
            if self._replay is None:
                self._ordinary = max(0, self._ordinary - 1)
                return self._agent.update(batch, context, generator)
            for place, tensor in zip(self._inputs, inputs, strict=True):
                place.copy_(tensor, non_blocking=True)
            metrics, posterior = self._replay()
            self._agent.stepped()
            names, values = list(metrics), torch.stack([m.float() for m in metrics.values()])
        return dict(zip(names, values.unbind(), strict=True)), posterior

    def _record(self, batch: Batch[Tensor], context: Carry | None, generator: Generator) -> None:
        """Record the update over copies of (B, T) ``batch`` and (B, ...) ``context``."""
        held = batch.map(torch.clone)
        start = None if context is None else tuple(torch.clone(c) for c in context)
        try:
            self._replay = self._capture(
                lambda: self._agent.step(held, start, generator), generator
            )
        except RuntimeError as error:
            self.failed = True
            log.warning("train.graph: updates are not recorded, and stay as they were: %s", error)
        self._inputs = _tensors(held, start)

    @contextlib.contextmanager
    def _aside(self) -> Iterator[None]:
        """Compute on a stream of our own, as recording needs it; on CPUs there is none."""
        if self._stream is None:
            yield
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            yield
        torch.cuda.current_stream().wait_stream(self._stream)


def _tensors(batch: Batch[Tensor], context: Carry | None) -> list[Tensor]:
    """Every tensor of (B, T) ``batch`` and (B, ...) ``context``, always in the same order."""
    found: list[Tensor] = []
    batch.map(found.append)
    return [*found, *(context or ())]

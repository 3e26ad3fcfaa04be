"""A learner whose updates several workers compute together: each learns a share of every batch.

The first worker chooses the windows and knows where they start (its ``ContextMemory``); each reads
its own share of them from its own view of the store.  What follows is one update of the joined
batch (``nn.joined``), so that weights, optimisers and generators stay alike everywhere, and the
first worker's checkpoint is that of all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.contract.batch import Batch
from wm_core.contract.errors import StoreError
from wm_core.nn import joined
from wm_core.replay.sampler import ChosenWindows, Sampler
from wm_core.store.reader import Store
from wm_core.training.context_memory import ContextMemory
from wm_core.training.foreign_keys import ForeignKeys
from wm_core.training.learner import Learner
from wm_core.training.team import Team, Word
from wm_core.world.base import Carry
from wm_core.world.latent import to_device

COPY_S = 60.0  #: seconds in which a worker's copy of the store has to have what was chosen
_AGAIN_S = 0.1  #: between two tries to read windows that a copy lacks


class Learnt(NamedTuple):
    """What an update gives, over the whole joined batch."""

    metrics: dict[str, Tensor]  #: name -> ()
    packed: tuple[Tensor, Tensor] | None  #: (B T, D) and (B T, S) latents; None: none are kept
    losses: Tensor | None  #: (B,) of each window; None where no selector asks


class Share:
    """One worker's part of every update.

    Args:
        agent: on its device; alike in all workers when an update begins.
        store: this worker's view.
        sampler: reads from it.
        memory: packs latents.
        generator: of the agent's noise, alike in all workers.
        team: all of them.
    """

    def __init__(
        self,
        agent: AgentCore,
        store: Store,
        sampler: Sampler,
        memory: ContextMemory,
        generator: torch.Generator,
        team: Team,
    ) -> None:
        self.agent, self.generator, self.team, self._memory = agent, generator, team, memory
        self.keys = ForeignKeys(store)
        self._store, self._sampler = store, sampler
        self._cpu_s = time.process_time()
        place, batch = team.place, agent.config.replay.batch
        rows = batch // place.size
        self._own = slice(place.rank * rows, (place.rank + 1) * rows)
        carry = agent.world.dynamics.carry_of(agent.initial(batch)) if memory.keeps else ()
        self._like = [torch.zeros_like(c, device="cpu") for c in carry]

    def context(self, carry: Carry | None) -> Carry | None:
        """(B, ...) where the windows start, as the first worker knows it, for every worker."""
        if not self._memory.keeps:
            return None
        parts = self._like if carry is None else [c.cpu().contiguous() for c in carry]
        return tuple(self.team.share(part.clone()) for part in parts)

    def read(self, choice: ChosenWindows) -> tuple[Batch[np.ndarray] | None, bool, float]:
        """Read this worker's share of ``choice``.

        Returns:
            (B / N, T) windows, or None where this view of the store lacks some; whether every
            worker has its own; and the CPU seconds that the workers after the first have used
            since the last call.
        """
        windows = self._windows(choice)
        if windows is None:
            self._store.refresh()
            windows = self._windows(choice)
        used, self._cpu_s = self._cpu_s, time.process_time()
        others_s = self._cpu_s - used if self.team.place.rank else 0.0
        lacking, cpu_s = self.team.add_up([float(windows is None), others_s])
        return windows, not lacking, cpu_s

    def _windows(self, choice: ChosenWindows) -> Batch[np.ndarray] | None:
        first = choice.first[self._own]
        if self.team.place.rank:
            first = self.keys.own(first)
        return self._sampler.read(ChosenWindows(first, choice.has_context[self._own]))

    def learn(self, windows: Batch[np.ndarray], context: Carry | None) -> Learnt:
        """Take the joined step from (B / N, T) ``windows`` and (B, ...) ``context``."""
        device = self.generator.device
        own = None if context is None else tuple(c[self._own].to(device) for c in context)
        batch = to_device(windows, device)
        with joined.joining(self.team.place):
            metrics, posterior = self.agent.update(batch, own, self.generator)
            packed = losses = None
            if self._memory.keeps:
                floats, stoch = self._memory.pack(posterior)
                packed = joined.rows_of_all(floats), joined.rows_of_all(stoch)
            if self._sampler.selector.wants_losses:
                losses = joined.rows_of_all(self.agent.window_loss(batch, posterior))
            means = joined.mean(torch.stack([m.float() for m in metrics.values()]))
        return Learnt(dict(zip(metrics, means.unbind(), strict=True)), packed, losses)


class SharedLearner(Learner):
    """The first worker's learner, which tells the others what to learn.

    Args:
        agent: already on its device.
        sampler: chooses the windows.
        memory: where windows start from.
        generator: of the agent's noise, on its device.
        store: that ``sampler`` reads.
        team: this process is the first of.
        leave: sends the other workers away, when the training ends.
    """

    def __init__(
        self,
        agent: AgentCore,
        sampler: Sampler,
        memory: ContextMemory,
        generator: torch.Generator,
        *,
        store: Store,
        team: Team,
        leave: Callable[[], None],
    ) -> None:
        super().__init__(agent, sampler, memory, generator)
        self._team, self._store, self._leave, self._choosing = team, store, leave, sampler
        self._share = Share(agent, store, sampler, memory, generator, team)
        self._alike, self._told = False, 0
        self._others_cpu_s = 0.0

    def update(self) -> dict[str, Tensor]:
        """Learn from one batch, with the others; returns its metrics, each () of the joined batch.

        Raises:
            WorkersFailed: where another worker is lost; this one is as after the update before.
            StoreError: where a worker's copy of the store stays behind.
        """
        self._pass_losses()
        with self._team.reporting():
            if not self._alike:
                self._team.say(Word.STATE)
                self._team.share_state(state_of(self.agent, self._generator))
                self._alike = True
            self._tell_sessions()
            choice, windows, context = self._agreed()
            learnt = self._share.learn(windows, context)
        self._team.updated()
        if learnt.packed is not None:
            length = np.arange(windows.reward.shape[1])
            self.memory.put_packed(choice.first[:, None] + length, *learnt.packed)
        if learnt.losses is not None:
            self._trained = choice.first, learnt.losses
        self.updates += 1
        return learnt.metrics

    def _tell_sessions(self) -> None:
        """Tell the others which sessions have come; a copy of the store numbers them anew."""
        names = self._store.sessions
        if len(names) > self._told:
            self._team.say(Word.SESSIONS)
            self._team.share_state({"sessions": [list(name) for name in names]})
            self._told = len(names)

    def _agreed(self) -> tuple[ChosenWindows, Batch[np.ndarray], Carry | None]:
        """Choose windows that every worker can read; returns them, our share, and their starts."""
        choice, deadline = self._choosing.choose(), time.monotonic() + COPY_S
        while True:
            self._team.say(Word.UPDATE, np.concatenate([choice.first, choice.has_context]))
            context = self._share.context(self.memory.get(choice.context))
            windows, complete, cpu_s = self._share.read(choice)
            self._others_cpu_s += cpu_s
            if windows is not None and complete:
                return choice, windows, context
            if time.monotonic() > deadline:
                self._team.updated()
                raise StoreError(
                    f"a worker's copy of {self._store.root} lacks the newest steps since "
                    f"{COPY_S:g} s: expected a copy that follows it, see docs/scale.md"
                )
            time.sleep(_AGAIN_S)
            self._store.refresh()
            self._tell_sessions()
            if self._choosing.read(choice) is None:  # removed meanwhile
                choice = self._choosing.choose()

    def take_cpu_s(self) -> float:
        taken, self._others_cpu_s = self._others_cpu_s, 0.0
        return taken

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self._alike = False

    def close(self) -> None:
        self._leave()


def follow(share: Share) -> None:
    """Compute this worker's share of every update until the first worker sends it away.

    Raises:
        WorkersFailed: where another worker is lost.
    """
    team, count = share.team, share.agent.config.replay.batch
    with team.reporting():
        while True:
            word, numbers = team.hear()
            if word is Word.END:
                return
            if word is Word.STATE:
                take_state(share.agent, share.generator, team.share_state(None))
                continue
            if word is Word.SESSIONS:
                share.keys.told = [tuple(name) for name in team.share_state(None)["sessions"]]
                continue
            choice = ChosenWindows(numbers[:count], numbers[count:].astype(bool))
            context = share.context(None)
            windows, complete, _ = share.read(choice)
            if windows is not None and complete:
                share.learn(windows, context)


def state_of(agent: AgentCore, generator: torch.Generator) -> dict[str, Any]:
    """What has to be alike in all workers: weights, optimisers, and the noise to come."""
    state = {k: v.cpu() if isinstance(v, Tensor) else v for k, v in agent.state_dict().items()}
    return {"agent": state, "generator": generator.get_state()}


def take_state(agent: AgentCore, generator: torch.Generator, state: Mapping[str, Any]) -> None:
    """Become what ``state_of`` was taken of."""
    agent.load_state_dict(state["agent"])
    generator.set_state(state["generator"])

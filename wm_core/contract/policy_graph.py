"""Runs a policy's graph, whole or in two halves.

The half *ahead* needs no observation, so it runs when the last command is out; the other one is
all that stands between an observation and its command.  Both are cut from the same bytes and hold
weights of their own, so that neither is held twice.  The answers are those of the whole graph, bit
for bit.  The estimates, which acting does without, are parts of their own, run when asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from wm_core.contract.card import PolicyCard, TensorInfo
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_cut import Graph
from wm_core.contract.onnx_session import open_session
from wm_core.contract.onnx_wire import Piece

Tensors = Mapping[str, np.ndarray]
ESTIMATES = ("value", "surprise")  #: outputs that acting does without


class _Part:
    """One session, and what it reads and answers."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._session = open_session(pieces)
        self.cancel, self.close = self._session.cancel, self._session.close

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(info.name for info in self._session.inputs)

    def run(self, feed: Tensors, outputs: Sequence[str]) -> dict[str, np.ndarray]:
        """Compute ``outputs`` (1, ...) from a ``feed`` (1, ...) that may hold more than it reads.

        Raises:
            PolicyFailed: where an input is missing or an operator fails.
        """
        if not outputs:
            return {}
        return self._session.run(feed, outputs)


class PolicyGraph:
    """The graph of a policy, opened.

    Args:
        model: bytes of the ONNX file.
        graph: the same, parsed.
        card: says where the graph is cut, if it can be.
        halves: open the two halves, where the card names them, instead of the whole.

    Attributes:
        splits: whether ``ahead`` computes anything.

    Raises:
        PolicyRefused: for a file that does not load or cannot be cut where its card says.
    """

    def __init__(self, model: bytes, graph: Graph, card: PolicyCard, *, halves: bool) -> None:
        self.outputs = tuple(info.name for info in card.outputs)
        self.splits = halves and bool(card.split)
        self._ahead_outputs: tuple[str, ...] = ()
        # by name, with the tensors that each reads of the rest
        self._estimates: dict[str, tuple[_Part, tuple[str, ...]]] = {}
        if not self.splits:
            self._rest = _Part([model])
            self._parts = [self._rest]
            return
        inner = tuple(info.name for info in card.split)
        early = set(graph.independent(card.spec.inputs))
        self._ahead_outputs = (
            *inner, *(name for name in self.outputs if name in early and name not in inner)
        )  # fmt: skip
        ahead = graph.cut(card.split, self._ahead_outputs)
        if late := sorted(set(ahead.inputs) & set(card.spec.inputs)):
            raise PolicyRefused(f"policy card: its split needs the observations {late}")
        self._ahead = _Part(ahead.pieces)
        self._cut_rest(graph, card)
        self._parts = [self._ahead, self._rest, *(part for part, _ in self._estimates.values())]

    def _cut_rest(self, graph: Graph, card: PolicyCard) -> None:
        """Cut what needs the observation: what acting needs, and each estimate by itself."""
        later = [n for n in self.outputs if n not in self._ahead_outputs]
        core = [name for name in later if name not in ESTIMATES]
        shared: dict[str, tuple[TensorInfo, ...]] = {}
        for name in (name for name in later if name in ESTIMATES):
            read = graph.shared(card.split, core, name)
            if read is None:
                core.append(name)
            else:
                shared[name] = read
        between = {info.name: info for infos in shared.values() for info in infos}
        at = (*card.split, *between.values())
        self._rest = _Part(graph.cut(at, [*dict.fromkeys([*core, *between])]).pieces)
        for name, infos in shared.items():
            part = _Part(graph.cut(at, [name]).pieces)
            self._estimates[name] = part, tuple(info.name for info in infos)

    def cancel(self) -> None:
        """Make the run that goes on now, and every later one, fail; from any thread."""
        for part in self._parts:
            part.cancel()

    def close(self) -> None:
        """Free the graph in the thread that calls this; it cannot run any more."""
        for part in self._parts:
            part.close()

    def ahead(self, feed: Tensors) -> dict[str, np.ndarray]:
        """Compute what the rest needs and follows from no observation.

        Args:
            feed: carry, ``prev_action``, ``is_first`` and noise, (1, ...) each.

        Raises:
            PolicyFailed: where an operator fails.
        """
        return self._ahead.run(feed, self._ahead_outputs) if self.splits else {}

    def rest(
        self, feed: Tensors, ahead: Tensors, outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Compute the step from what ``ahead`` gave.

        Args:
            feed: every input (1, ...) by name.
            ahead: from ``ahead``, of the same inputs; (1, ...) each.
            outputs: what to compute; None: everything.

        Returns:
            Every one of ``outputs`` (1, ...) by name.

        Raises:
            PolicyFailed: where an operator fails.
        """
        outputs = self.outputs if outputs is None else outputs
        apart = [name for name in outputs if name in self._estimates]
        wanted = [name for name in outputs if name not in ahead and name not in apart]
        wanted += [name for estimate in apart for name in self._estimates[estimate][1]]
        known = {**feed, **ahead}
        found = self._rest.run(known, [*dict.fromkeys(wanted)])
        for name in apart:
            found |= self._estimates[name][0].run({**known, **found}, [name])
        return {name: ahead[name] if name in ahead else found[name] for name in outputs}

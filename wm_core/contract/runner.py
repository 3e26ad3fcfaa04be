"""Loads a policy file, proves it and lets it act.

A reader could get three things wrong.  The carry and the noise are inputs: the graph keeps
nothing between calls.  ``prev_action`` is what was really sent, at ``is_first`` too: the network
sees zeros there, the slew limit sees what the actuator does.  A flipped bit in a weight loads
silently everywhere, so ``load`` trusts nothing that its manifest's hash does not cover.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from wm_core.contract.card import CARD_KEY, Manifest, PolicyCard
from wm_core.contract.card_check import (
    NOISE_ACTION,
    check_answer,
    check_card,
    check_limits_hold,
    check_precision,
    check_same_version,
    check_split,
)
from wm_core.contract.engine import PolicyCarry as PolicyCarry
from wm_core.contract.engine import PolicyEngine as PolicyEngine
from wm_core.contract.engine import PolicyOutput as PolicyOutput
from wm_core.contract.errors import PolicyFailed, PolicyRefused, SpecMismatch
from wm_core.contract.golden import check_golden
from wm_core.contract.memory_limit import bounded_memory, unready_without_memory
from wm_core.contract.onnx_cut import Graph
from wm_core.contract.onnx_limits import check_limits, check_weights
from wm_core.contract.policy_folder import PolicyFolder
from wm_core.contract.policy_graph import ESTIMATES, PolicyGraph
from wm_core.contract.spec import ActionSpec, Obs

MAX_MODEL_BYTES = 1_500_000_000  #: a larger policy file is refused before it is read
MAX_GOLDEN_BYTES = 200_000_000
_ROUNDING = 1e-5  #: by which an action may leave [-1, 1]


class Ahead(NamedTuple):
    """Half of a step, computed before its observation came."""

    prev_action: np.ndarray  #: (A,) that was sent
    is_first: bool
    mean: bool
    carry: PolicyCarry  #: (1, ...) that it started from
    noise: dict[str, np.ndarray]  #: (1, ...) drawn for this step
    values: dict[str, np.ndarray] | None  #: (1, ...) by name of the tensor; None: it failed

    def fits(
        self, prev_action: np.ndarray, is_first: bool, carry: PolicyCarry, mean: bool
    ) -> bool:
        """Whether it is half of the step from ``prev_action`` (A,) and ``carry`` (1, ...)."""
        same = (self.is_first, self.mean) == (is_first, mean) and self.carry is carry
        return same and np.array_equal(self.prev_action, prev_action)


class PolicyRunner:
    """Runs one ONNX policy; carry, noise and limits are arguments, nothing is kept between calls.

    Build it with ``load`` or ``from_bytes``.  Not for use from two threads at once.

    Attributes:
        card: what the file says about itself, validated against the graph's inputs and outputs.
        spec: the observation and action that it was trained for.
        manifest: which published version this is; None when it was built from bytes alone.
    """

    def __init__(self, graph: PolicyGraph, card: PolicyCard, manifest: Manifest | None) -> None:
        self.card, self.spec, self.manifest = card, card.spec, manifest
        self._graph = graph
        by_name = {info.name: info for info in card.inputs}
        self._noise = {name: by_name[name].shape for name in card.noise}
        deciding = {*card.noise} & {NOISE_ACTION}
        self._mean_noise = {n: np.full(self._noise[n], 0.5, np.float32) for n in deciding}
        self._carry: PolicyCarry | None = None  # of the last answer
        self._initial = {p.input: np.zeros(by_name[p.input].shape, np.float32) for p in card.carry}
        self._flags = {flag: np.array([flag]) for flag in (False, True)}
        self._obs_keys = tuple(self.spec.inputs)
        self._needed = ("action", "command", *(pair.output for pair in card.carry))
        self._estimates = tuple(name for name in ESTIMATES if name in graph.outputs)
        self._last: tuple[PolicyCarry, PolicyCarry, tuple[str, ...]] | None = None

    @classmethod
    def from_bytes(
        cls,
        model: bytes,
        manifest: Manifest | None = None,
        *,
        max_bytes: int = MAX_MODEL_BYTES,
        halves: bool = True,
    ) -> PolicyRunner:
        """Open the policy in ``model``, whose card must fit its graph and the manifest.

        Args:
            model: bytes of the ONNX file.
            manifest: which version is expected; None: any.
            max_bytes: a larger file is refused.
            halves: run the graph in two halves where its card says how; else always at once.

        Raises:
            PolicyRefused: for a file that is too large, does not load or has no fitting card.
        """
        if len(model) > max_bytes:
            raise PolicyRefused(f"policy file: at most {max_bytes} bytes, got {len(model)}")
        with unready_without_memory():
            return cls._opened(model, manifest, halves=halves)

    @classmethod
    def _opened(cls, model: bytes, manifest: Manifest | None, *, halves: bool) -> PolicyRunner:
        contents = check_limits(model)
        graph = Graph(model)
        text = graph.metadata.get(CARD_KEY)
        if text is None:
            raise PolicyRefused(
                f"policy file has no card (metadata {CARD_KEY!r}): export it with `wm export`"
            )
        card = PolicyCard.parse(text)
        check_card(card, graph.inputs, graph.outputs)
        check_split(card, contents.shapes)
        check_precision(card, contents.operators)
        if manifest is not None:
            check_same_version(card, manifest)
        return cls(PolicyGraph(model, graph, card, halves=halves), card, manifest)

    @classmethod
    def load(
        cls, path: Path, *, verify_golden: bool = True, max_tolerance: float | None = None
    ) -> PolicyRunner:
        """Load the policy in a folder (or the ``.onnx`` file in it) and validate its manifest.

        Args:
            path: the folder, or the path of an ``.onnx`` file next to its manifest.
            verify_golden: replay the golden rollout and refuse a file that acts differently here.
            max_tolerance: largest difference from the golden rollout that this robot accepts,
                whatever the card asks for; see ``contract.golden.accepted``.

        Raises:
            PolicyRefused: for anything that is missing, differs from the manifest, does not load,
                has no fitting card, or acts differently from the network it was exported from.
        """
        runner = cls.open(path)
        runner.prove(PolicyFolder(Path(path)), rollout=verify_golden, max_tolerance=max_tolerance)
        return runner

    @classmethod
    def open(cls, path: Path) -> PolicyRunner:
        """Load the policy at ``path`` without running it yet: ``prove`` must follow.

        Raises:
            PolicyRefused: as ``load`` does, but for what it does.
        """
        folder = PolicyFolder(Path(path))
        manifest = folder.read_manifest()
        model = folder.read(manifest.policy, MAX_MODEL_BYTES)
        runner = cls.from_bytes(model, manifest)
        check_weights(model, runner.card)
        return runner

    def prove(
        self, folder: PolicyFolder, *, rollout: bool = True, max_tolerance: float | None = None
    ) -> None:
        """Run what was opened from ``folder``, and refuse it where it does not do what it says.

        Args:
            folder: from which this policy was opened.
            rollout: replay the golden rollout as well, a second or two for a large policy.
            max_tolerance: as ``load`` takes it.

        Raises:
            PolicyRefused: for limits that differ from the card's, or another answer than the
                network gave that it was exported from; also after ``cancel``.
        """
        manifest = self.manifest
        with unready_without_memory():
            golden = b""
            if rollout and manifest is not None:
                golden = folder.read(manifest.golden, MAX_GOLDEN_BYTES)
            with bounded_memory(0 if manifest is None else manifest.policy.bytes):
                check_limits_hold(self.card, self.call)
                if golden:
                    bound = max_tolerance
                    check_golden(golden, self.card, self._checked_call, max_tolerance=bound)

    def _checked_call(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """``call``, of which every answer keeps the limits of the card."""
        out, sent = self.call(feed), feed["prev_action"][0]
        check_answer(self.card, out["action"][0], out["command"][0], sent, "golden rollout")
        return out

    def initial_carry(self) -> PolicyCarry:
        """Make zeros by input name; where ``is_first`` is set their values do not matter."""
        return {name: value.copy() for name, value in self._initial.items()}

    def call(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run the graph: every input (1, ...) by name to every output (1, ...) by name.

        Raises:
            PolicyFailed: where an operator fails, such as an index that leaves its table.
        """
        return self._graph.rest(feed, self._graph.ahead(feed))

    def prepare(
        self,
        prev_action: np.ndarray,
        is_first: bool,
        carry: PolicyCarry,
        rng: np.random.Generator,
        *,
        mean: bool = False,
        before: Ahead | None = None,
    ) -> Ahead:
        """Take the half of a step that needs no observation; the arguments are those of ``run``.

        Args:
            prev_action: (A,).
            is_first: whether the step will begin an episode.
            carry: (1, ...) by input name.
            rng: draws the latent and the action.
            mean: take the mean of the action's distribution.
            before: what was prepared for the same step, whose noise is kept.
        """
        sent, values = np.array(prev_action, np.float32), None
        if before is not None and before.fits(sent, is_first, carry, mean):
            return before
        noise = self._draw(rng) if before is None else before.noise
        with contextlib.suppress(PolicyFailed):  # the step itself will fail and say so
            values = self._graph.ahead(self._early_feed(sent, is_first, mean, carry, noise))
        return Ahead(sent, is_first, mean, carry, noise, values)

    def run(
        self,
        obs: Obs,
        prev_action: np.ndarray,
        is_first: bool,
        carry: PolicyCarry,
        rng: np.random.Generator,
        *,
        mean: bool = False,
        ahead: Ahead | None = None,
        estimates: Collection[str] = ESTIMATES,
    ) -> PolicyOutput:
        """Take one step of the policy.

        Args:
            obs: images (H, W, C) from ``contract.image.to_network``; vectors (n,) float32.
            prev_action: (A,) in [-1, 1], what was really sent in the last step.
            is_first: forget the carry and begin an episode.
            carry: from ``initial_carry`` or the last output.
            rng: draws the latent and the action.
            mean: take the mean of the action's distribution; the latent is still drawn.
            ahead: from ``prepare``; where it is half of another step, its noise alone is used.
            estimates: which of ``value`` and ``surprise`` to compute.

        Raises:
            SpecMismatch: for an observation or action that does not fit ``spec``.
            PolicyFailed: when it does not run or its answer is not finite.
        """
        self.spec.check_obs(obs)
        sent, is_first = np.asarray(prev_action, np.float32), bool(is_first)
        check_sent(self.spec.action, sent)
        self._check_finite({key: obs[key] for key in self.spec.vectors}, "observation")
        if carry is not self._carry:  # it was looked at when it was the answer
            self._check_finite(carry, "carry")
        noise = self._draw(rng) if ahead is None else ahead.noise
        feed = self._early_feed(sent, is_first, mean, carry, noise)
        fits = ahead is not None and ahead.fits(sent, is_first, carry, mean)
        early = ahead.values if ahead is not None and fits else None
        if early is None:
            early = self._graph.ahead(feed)
        feed.update((key, obs[key][None]) for key in self._obs_keys)
        wanted = [name for name in self._estimates if name in estimates]
        self._last = feed, early, (*self._needed, *wanted)
        return self._output(self._graph.rest(*self._last))

    def warm(self) -> None:
        """Repeat what the last step did after its observation came, and forget the answer.

        Just before the next observation comes, this brings the weights back into the caches.
        """
        if self._last is not None:
            with contextlib.suppress(PolicyFailed):
                self._graph.rest(*self._last)

    def _draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """(1, ...) uniforms of one step by input name."""
        return {name: rng.random(shape, dtype=np.float32) for name, shape in self._noise.items()}

    def _early_feed(
        self,
        sent: np.ndarray,
        first: bool,
        mean: bool,
        carry: PolicyCarry,
        noise: dict[str, np.ndarray],
    ) -> dict[str, np.ndarray]:
        """Every input (1, ...) but the observation."""
        feed = {"prev_action": sent[None], "is_first": self._flags[first], **noise, **carry}
        return {**feed, **self._mean_noise} if mean else feed

    def cancel(self) -> None:
        """Make the call that goes on now, and every later one, fail; from any thread."""
        self._graph.cancel()

    def close(self) -> None:
        """Free the model in the thread that calls this; it cannot run any more."""
        self._graph.close()

    def _output(self, out: dict[str, np.ndarray]) -> PolicyOutput:
        carry = {pair.input: out[pair.output] for pair in self.card.carry}
        self._check_finite(carry, "carry")
        self._check_finite(
            {name: out[name] for name in ("action", "command", *ESTIMATES) if name in out},
            "answer",
        )
        self._carry = carry
        return PolicyOutput(
            action=out["action"][0],
            command=out["command"][0],
            carry=carry,
            value=float(out["value"].reshape(())) if "value" in out else None,
            surprise=float(out["surprise"].reshape(())) if "surprise" in out else None,
        )

    @staticmethod
    def _check_finite(values: Mapping[str, np.ndarray], what: str) -> None:
        """Raise ``PolicyFailed`` for NaN or infinity in any of the arrays (...)."""
        for name, value in values.items():
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise PolicyFailed(
                    f"{what} {name!r}: expected finite numbers, got {_excerpt(value)}"
                )


def check_sent(spec: ActionSpec, sent: np.ndarray) -> None:
    """Raise ``SpecMismatch`` unless ``sent`` (A,) can be an action that was sent.

    Args:
        spec: of the action.
        sent: in [-1, 1]; discrete: one-hot for each choice, or zeros before the first.
    """
    if sent.shape != (spec.size,):
        raise SpecMismatch(f"prev_action: expected ({spec.size},), got {sent.shape}")
    if not np.abs(sent).max() <= 1.0 + _ROUNDING:
        raise SpecMismatch(
            f"prev_action: expected [-1, 1], got {_excerpt(sent)}; ActionSpec.from_physical "
            "converts a command in physical units"
        )
    if spec.discrete and sent.any() and not spec.is_chosen(sent):
        one = f"one of each of the {spec.kind}" if spec.groups else "one choice"
        raise SpecMismatch(f"prev_action: expected {one} (one-hot), got {_excerpt(sent)}")


def _excerpt(value: np.ndarray) -> str:
    """The first numbers of an array (...), for an error."""
    return np.array2string(value.reshape(-1)[:6], precision=4)

"""Holds what a policy's card says against what its graph does, when it is loaded.

The card and not the graph decides what a robot sends: a card with other limits than the graph was
traced with would move an arm farther than its policy ever meant.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from wm_core.contract.card import Manifest, PolicyCard, TensorInfo
from wm_core.contract.errors import PolicyFailed, PolicyRefused
from wm_core.contract.onnx_cut import Info
from wm_core.contract.spec import ActionSpec, Spec

NOISE_ACTION = "noise_action"  #: 0.5 in it gives the mean action
NOISE_ROLES = ("noise_latent", NOISE_ACTION)  #: what a policy may draw
_NEAR = 1e-4  #: largest difference of a command, as a share of its range, that rounding explains
_PROBES = 4
_EIGHT_BITS = {"DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger"}

Call = Callable[[Mapping[str, np.ndarray]], dict[str, np.ndarray]]


def check_card(card: PolicyCard, inputs: Mapping[str, Info], outputs: Mapping[str, Info]) -> None:
    """Raise ``PolicyRefused`` unless the card names what the graph reads and writes.

    Args:
        card: of the policy.
        inputs: name -> dtype and shape of each input of the graph.
        outputs: the same of each output.
    """
    for what, infos, found in (("input", card.inputs, inputs), ("output", card.outputs, outputs)):
        _check_same(what, "the card says {}, the graph has {}", _shapes(infos), found)
    _check_roles(card)


def check_precision(card: PolicyCard, operators: Collection[str]) -> None:
    """Raise ``PolicyRefused`` for a card that asks for the tolerance of 8 bits without having any.

    Args:
        card: of the policy.
        operators: of its graph, by name.
    """
    if card.quantized and not _EIGHT_BITS & {*operators}:
        raise PolicyRefused(
            f"policy card: it says {card.quantized}, and the graph computes in float32 alone: "
            "the tolerance of 8 bits is not its own"
        )


def check_split(card: PolicyCard, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ``PolicyRefused`` where the card splits the graph at what that does not compute.

    Args:
        card: of the policy.
        shapes: name -> shape of what the graph reads and computes.
    """
    for info in card.split:
        if shapes.get(info.name) != info.shape:
            raise PolicyRefused(
                f"policy card: its split says {info.name!r} is {info.shape}, the graph computes "
                f"{shapes.get(info.name, 'nothing of that name')}"
            )


def check_limits_hold(card: PolicyCard, call: Call) -> None:
    """Raise ``PolicyRefused`` unless the graph keeps the card's range, units and slew limit.

    Runs the graph a few times from the two ends of the range: so the command shows both ends of
    what the graph sends, and the action how far it moves in one step.

    Args:
        card: of the policy.
        call: runs the graph; every input (1, ...) by name to every output by name.
    """
    action, rng = card.spec.action, np.random.default_rng(0)
    fixed = {pair.input for pair in card.carry} | {*card.noise}
    feed = {i.name: np.zeros(i.shape, i.dtype) for i in card.inputs}
    feed["is_first"] = np.array([True])
    for number in range(_PROBES):
        for name in fixed & {*card.noise}:
            feed[name] = np.clip(rng.random(feed[name].shape, np.float32), 1e-3, 1.0 - 1e-3)
        for end in (-1.0, 1.0):
            sent = np.full(action.size, end, np.float32)
            if action.discrete:
                sent = action.from_physical(np.array([number % n for n in action.sizes]))
            try:
                out = call({**feed, "prev_action": sent[None]})
            except PolicyFailed as error:
                raise PolicyRefused(f"on an observation of zeros: {error}") from error
            check_answer(card, out["action"][0], out["command"][0], sent, "on zeros")


def check_answer(
    card: PolicyCard, action: np.ndarray, command: np.ndarray, sent: np.ndarray, when: str
) -> None:
    """Raise ``PolicyRefused`` unless an answer of the graph keeps what the card promises.

    Args:
        card: of the policy.
        action: (A,) that the graph answered.
        command: (command_size,) that the graph answered, in physical units.
        sent: (A,) that it was told was sent before.
        when: names the moment in the error.
    """
    spec = card.spec.action
    if not (np.isfinite(action).all() and np.isfinite(command).all()):
        raise PolicyRefused(f"{when}: expected a finite answer, got {action}, {command}")
    if spec.discrete and not np.array_equal(action, spec.limit(action, sent)):
        over = spec.kind.replace("choices of", "each of the choices of")
        raise PolicyRefused(f"{when}: action {action} is not one-hot over {over}")
    if np.abs(action).max() > 1.0 + _NEAR:
        raise PolicyRefused(f"{when}: action {action} leaves [-1, 1]")
    wanted = spec.to_physical(action)
    if (np.abs(command - wanted) / _span(spec)).max() > _NEAR:
        raise PolicyRefused(
            f"{when}: command {command} is not the action {action}, which is {wanted} in the "
            f"card's limits {spec.low} .. {spec.high}: the card is not this graph's"
        )
    moved = 0.0 if spec.discrete else float(np.abs(action - sent).max())
    if moved > spec.max_change + _NEAR:
        raise PolicyRefused(
            f"{when}: the action moved by {moved:.3g} in one step, the card says by at most "
            f"{spec.max_change:.3g}: the card is not this graph's"
        )


def check_same_spec(exported: np.ndarray, card: PolicyCard) -> None:
    """Raise ``PolicyRefused`` where the card's spec is not the one that was exported.

    Args:
        exported: (n,) uint8, the JSON of the spec beside the golden rollout.
        card: of the policy.
    """
    try:
        spec = Spec.model_validate_json(exported.astype(np.uint8).tobytes())
    except ValueError as error:
        raise PolicyRefused(f"golden rollout: its spec is not readable: {error}") from error
    _check_same(
        "spec",
        "exported with {}, the card says {}",
        _flat(spec.model_dump()),
        _flat(card.spec.model_dump()),
    )


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Give nested settings dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{above}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _span(spec: ActionSpec) -> np.ndarray:
    """Size of each command's range (command_size,); discrete: of one index."""
    return np.ones(spec.command_size) if spec.discrete else np.subtract(spec.high, spec.low)


def _check_same(what: str, said: str, some: Mapping[str, Any], others: Mapping[str, Any]) -> None:
    """Raise ``PolicyRefused`` where two tables differ; ``said`` has a ``{}`` for each value."""
    for name in sorted(some.keys() | others.keys()):
        if some.get(name) != others.get(name):
            values = said.format(some.get(name, "nothing"), others.get(name, "nothing"))
            raise PolicyRefused(f"{what} {name!r}: {values}")


def _shapes(infos: tuple[TensorInfo, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
    return {info.name: (info.dtype, info.shape) for info in infos}


def _check_roles(card: PolicyCard) -> None:
    """Raise ``PolicyRefused`` unless every input and output has the shape of its role."""
    spec, inputs, outputs = card.spec, _shapes(card.inputs), _shapes(card.outputs)
    floats = ("float32", (1, spec.action.size))
    wanted = {key: (sensor.dtype.name, (1, *sensor.shape)) for key, sensor in spec.inputs.items()}
    wanted |= {"prev_action": floats, "is_first": ("bool", (1,))}
    answers = {"action": floats, "command": ("float32", (1, spec.action.command_size))}
    for what, roles, shapes in (("input", wanted, inputs), ("output", answers, outputs)):
        found = {name: shapes[name] for name in roles if name in shapes}
        _check_same(what, "the spec wants {}, got {}", roles, found)
    if odd := sorted({*card.noise} - {*NOISE_ROLES}):
        raise PolicyRefused(f"noise: expected of {NOISE_ROLES}, the card says {odd}")
    for what, texts in (("names", spec.action.names), ("units", spec.action.units)):
        if len(texts) not in (0, spec.action.size):
            raise PolicyRefused(
                f"{what} of the action: expected {spec.action.size} or none, got {texts}"
            )
    others = [*(pair.input for pair in card.carry), *card.noise]
    if sorted([*wanted, *others]) != sorted(inputs):
        raise PolicyRefused(
            f"inputs: expected {sorted([*wanted, *others])}, the graph has {sorted(inputs)}"
        )
    if any(inputs[name][0] != "float32" for name in others):
        raise PolicyRefused("carry and noise: expected float32 inputs")
    carried = {pair.input: outputs.get(pair.output) for pair in card.carry}
    initial = {pair.input: inputs[pair.input] for pair in card.carry}
    _check_same("carry", "it is {}, its output is {}", initial, carried)


def check_same_version(card: PolicyCard, manifest: Manifest) -> None:
    """Raise ``PolicyRefused`` unless manifest and card speak of the same version."""
    pairs = {
        "version": (manifest.version, card.version),
        "weights_sha256": (manifest.weights_sha256, card.weights_sha256),
        "golden sha256": (manifest.golden.sha256, card.golden_sha256),
    }
    for what, (stated, got) in pairs.items():
        if stated != got:
            raise PolicyRefused(
                f"{what}: the manifest says {stated}, the policy's card says {got}"
            )

"""Makes a policy of another trainer's network: a graph around it that keeps our contract.

Around the network stand, in this order: each observation's default, scale and history; the whole
input's normalisation; the network itself, prefixed ``net/``; its output's scale and default; the
limits and the slew of the command.  What the network remembers is carried outside, and
``is_first`` sets it back.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx
from onnx import compose

from wm_core.contract.card import CarryPair, TensorInfo
from wm_core.contract.errors import PolicyRefused, SettingsError, nearest
from wm_core.contract.inputs import ImageSpec, Vector
from wm_core.contract.spec import ActionSpec, Spec
from wm_core.exporting.answers import (
    OWN_ACTION,
    Answers,
    CarriedState,
    NetworkInput,
    ObservedImage,
    ObservedPart,
)
from wm_core.exporting.choosing import chosen_by_indices, chosen_by_scores
from wm_core.exporting.graph_builder import GraphBuilder
from wm_core.exporting.network import Network

_PREFIX = "net/"
_OWN = "own_last_action"


class Adopted(NamedTuple):
    """An ONNX file without a card, and what its card must say."""

    model: bytes
    spec: Spec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    carry: tuple[CarryPair, ...]


def wrap(network: Network, answers: Answers) -> Adopted:
    """Build the graph of a policy around ``network``.

    Raises:
        SettingsError: where the answers and the network do not fit, naming both.
        PolicyRefused: where the network cannot be run as a policy.
    """
    return _Wrapper(network, answers).build()


class _Wrapper:
    def __init__(self, network: Network, answers: Answers) -> None:
        self._net, self._answers, self._graph = network, answers, GraphBuilder()
        self._observed: dict[str, Vector | ImageSpec] = {}
        self._carry: dict[str, tuple[int, ...]] = {}  # by input name
        self._next: dict[str, str] = {}  # tensor that goes into the carry's output
        self._size = self._action_size()
        self._action = self._action_spec()
        self._check_names()

    def build(self) -> Adopted:
        graph, net = self._graph, self._net.proto.graph
        own = self._own_action()
        for name, answer in self._answers.inputs.items():
            self._feed(name, self._input(name, answer, own))
        for state in self._answers.state:
            self._state(state)
        prefixed = compose.add_prefix_graph(net, _PREFIX)
        graph.include(prefixed)
        raw = self._raw()
        sizes = self._action.sizes
        action, command = chosen_by_scores(graph, raw, sizes) if sizes else self._motion(raw)
        if _OWN in self._carry:
            self._next[_OWN] = raw
        graph.add("Identity", action, output="action")
        graph.add("Identity", command, output="command")
        for name, tensor in self._next.items():
            graph.add("Identity", tensor, output=f"next_{name}")
        return self._adopted()

    # ------------------------------------------------------------------ what has to fit

    def _check_names(self) -> None:
        net, answers = self._net, self._answers
        told = {*answers.inputs, *(state.input for state in answers.state)}
        for name in told - {*net.inputs}:
            raise SettingsError(nearest(name, net.inputs, what="input of the network"))
        if missing := sorted({*net.inputs} - told):
            raise SettingsError(
                f"expected an answer for each input of the network, got none for {missing}; name "
                "it under inputs, or under state where it carries what the network remembers"
            )
        for state in answers.state:
            if state.output not in net.outputs:
                raise SettingsError(nearest(state.output, net.outputs, what="output"))
            given, got = net.inputs[state.input], net.outputs[state.output]
            if given.shape != got.shape or given.dtype != "float32":
                raise SettingsError(
                    f"state: {state.input} is {given.dtype} {given.shape}, {state.output} is "
                    f"{got.dtype} {got.shape}; expected float32 of the same shape"
                )

    def _action_size(self) -> int:
        answer, outputs = self._answers.action, self._net.outputs
        if answer.output not in outputs:
            raise SettingsError(nearest(answer.output, outputs, what="output of the network"))
        info = outputs[answer.output]
        size = int(np.prod(info.shape))
        groups = answer.groups
        if answer.kind == "index":
            size, count = sum(groups) or len(answer.names), len(groups) or 1
            if size < 2 or int(np.prod(info.shape)) != count:
                wants = "one number and the names of its choices"
                if groups:
                    wants = f"a number for each of the groups {groups}"
                raise SettingsError(
                    f"action: an index needs {wants}, got {info.shape} and {answer.names}"
                )
        elif groups and size != sum(groups):
            raise SettingsError(
                f"action: expected {sum(groups)} scores, of the groups {groups} in a row, "
                f"{info.name!r} has {size}"
            )
        elif info.dtype != "float32":
            raise SettingsError(
                f"action: expected float32 numbers in {info.name!r}, the file has {info.dtype}; "
                "for the number of a choice say kind: index"
            )
        return size

    def _action_spec(self) -> ActionSpec:
        answer, size = self._answers.action, self._size
        if answer.groups:
            return ActionSpec.several_choices(answer.groups, answer.names, noop=answer.noop)
        if answer.kind != "continuous":
            assert isinstance(answer.noop, int)  # as its validator says
            return ActionSpec.choices(size, answer.names, noop=answer.noop)
        low, high, rate = (
            _spread(getattr(answer, field), size, f"action: {field}")
            for field in ("low", "high", "max_rate")
        )
        if not (low < high).all():
            raise SettingsError(f"action: expected each low below its high, got {low} .. {high}")
        change = 2.0
        if answer.max_rate:
            steps = 2.0 * rate * self._answers.period_s / (high - low)
            change = min(2.0, float(steps.min()))  # one limit for all: that of the slowest
        for field in ("names", "units"):
            if len(getattr(answer, field)) not in (0, size):
                raise SettingsError(
                    f"action: expected {size} {field} or none, got {getattr(answer, field)}"
                )
        return ActionSpec(
            low=tuple(low.tolist()),
            high=tuple(high.tolist()),
            names=answer.names,
            units=answer.units,
            max_change=change,
        )

    # ------------------------------------------------------------------ what goes in

    def _feed(self, name: str, tensor: str) -> None:
        info = self._net.inputs[name]
        shaped = self._graph.reshape(tensor, info.shape)
        self._graph.add("Identity", shaped, output=f"{_PREFIX}{name}")

    def _input(self, name: str, answer: NetworkInput, own: str) -> str:
        """The tensor that the network's input ``name`` reads."""
        graph, info = self._graph, self._net.inputs[name]
        if answer.episode_start:
            kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(info.dtype))
            return graph.add("Cast", "is_first", to=kind)
        if answer.image is not None:
            tensor, size = self._image(name, answer.image), int(np.prod(info.shape))
        else:
            size = answer.history * sum(part.total for part in answer.parts)
            if info.dtype != "float32" or size != int(np.prod(info.shape)):
                listed = ", ".join(
                    f"{p.name} {p.size}" + (f" x {p.history}" if p.history > 1 else "")
                    for p in answer.parts
                )
                raise SettingsError(
                    f"input {name!r}: the file reads {info.shape} {info.dtype}, the answers make "
                    f"{size} float32 ({listed}); mend a size, a history or the order"
                )
            parts = [self._part(name, number, p, own) for number, p in enumerate(answer.parts)]
            tensor = graph.add("Concat", *parts, axis=1) if len(parts) > 1 else parts[0]
            tensor = self._history(f"past_{name}", answer, tensor, size // answer.history)
        if answer.normalisation == "given":
            mean = _spread(answer.mean, size, f"input {name!r}: mean")
            std = _spread(answer.std, size, f"input {name!r}: std")
            flat = graph.reshape(tensor, (1, size))
            centred = graph.add("Sub", flat, graph.const(mean[None]))
            tensor = graph.add("Div", centred, graph.const(std[None]))
        return self._clipped(tensor, answer.clip)

    def _part(self, name: str, number: int, part: ObservedPart, own: str) -> str:
        """(1, total) numbers of one part."""
        graph = self._graph
        if part.name == OWN_ACTION:
            if part.size != self._size:
                raise SettingsError(
                    f"input {name!r}: {OWN_ACTION} has {self._size} numbers, got {part.size}"
                )
            value = own
        else:
            self._observe(part.name, Vector(size=part.size, names=part.names))
            value = part.name
        default = _spread(part.default, part.size, f"{part.name}: default")
        scale = _spread(part.scale, part.size, f"{part.name}: scale")
        if default.any():
            value = graph.add("Sub", value, graph.const(default[None]))
        if (scale != 1.0).any():
            value = graph.add("Mul", value, graph.const(scale[None]))
        value = self._clipped(value, part.clip)
        return self._history(f"past_{name}_{number}", part, value, part.size)

    def _history(self, carry: str, of: ObservedPart | NetworkInput, value: str, size: int) -> str:
        """(1, history * size) the last values (1, size); an episode begins as ``of`` says."""
        graph, past = self._graph, of.history - 1
        if not past:
            return value
        self._carry[carry] = (1, past, size)
        now = graph.reshape(value, (1, 1, size))
        filled = graph.add("Expand", now, graph.const((1, past, size), np.int64))
        if of.begins == "zeros":
            filled = graph.const(np.zeros((1, past, size)))
        before = graph.add("Where", "is_first", filled, carry)
        every = graph.add("Concat", before, now, axis=1)
        bounds = [graph.const([v], np.int64) for v in (1, of.history, 1)]
        self._next[carry] = graph.add("Slice", every, *bounds)
        if of.newest_first:
            ends = [graph.const([v], np.int64) for v in (-1, -of.history - 1, 1, -1)]
            every = graph.add("Slice", every, *ends)
        return graph.reshape(every, (1, of.history * size))

    def _image(self, name: str, image: ObservedImage) -> str:
        """The picture in the network's layout and type."""
        graph, info = self._graph, self._net.inputs[name]
        if len(info.shape) != 4:
            raise SettingsError(
                f"input {name!r}: an image has four axes, the file has {info.shape}"
            )
        axes = dict(zip(image.layout, info.shape, strict=True))
        if axes["C"] not in (1, 3):
            raise SettingsError(
                f"input {name!r}: expected 1 or 3 channels in {image.layout}, the file has "
                f"{info.shape}; a stack of pictures cannot be adopted"
            )
        self._observe(image.name, ImageSpec(height=axes["H"], width=axes["W"], channels=axes["C"]))
        tensor = image.name
        if image.layout == "NCHW":
            tensor = graph.add("Transpose", tensor, perm=[0, 3, 1, 2])
        if info.dtype == "float32":
            tensor = graph.add("Cast", tensor, to=onnx.TensorProto.FLOAT)
            return graph.add("Mul", tensor, graph.const(image.scale))
        if info.dtype != "uint8" or image.scale != 1.0:
            raise SettingsError(
                f"input {name!r}: expected float32, or uint8 with scale 1, the file has "
                f"{info.dtype} and the scale is {image.scale:g}"
            )
        return tensor

    def _observe(self, name: str, sensor: Vector | ImageSpec) -> None:
        before = self._observed.setdefault(name, sensor)
        if before != sensor:
            raise SettingsError(f"{name!r} is described twice: {before} and {sensor}")

    def _own_action(self) -> str:
        """(1, A) the network's last output: as it was asked for, or what was really sent."""
        parts = [p for answer in self._answers.inputs.values() for p in answer.parts]
        graph, size = self._graph, self._size
        if not any(part.name == OWN_ACTION for part in parts):
            return ""
        zeros = graph.const(np.zeros((1, size)))
        if self._answers.own_action == "asked" or self._action.discrete:
            self._carry[_OWN] = (1, size)
            return graph.add("Where", "is_first", zeros, _OWN)
        low, span, default, scale = self._mapping()
        command = self._scaled("prev_action", 0.5 * span, low + 0.5 * span)
        output = self._scaled(command, 1.0 / scale, -default / scale)
        return graph.add("Where", "is_first", zeros, output)

    def _state(self, state: CarriedState) -> None:
        """Carry one state with an axis of 1 in front, since its own first axis may be layers."""
        graph, info = self._graph, self._net.inputs[state.input]
        name, shape = f"state_{state.input}", (1, *info.shape)
        size = int(np.prod(info.shape))
        initial = _spread(state.initial, size, f"state {state.input!r}: initial")
        self._carry[name] = shape
        begin = graph.const(initial.reshape(shape))
        self._feed(state.input, graph.add("Where", "is_first", begin, name))
        self._next[name] = f"{_PREFIX}{state.output}"  # reshaped when the network stands there

    # ------------------------------------------------------------------ what comes out

    def _raw(self) -> str:
        """(1, A) the network's output as the trainer's own loop used it."""
        graph, answer = self._graph, self._answers.action
        for state in self._answers.state:
            name = f"state_{state.input}"
            self._next[name] = graph.reshape(self._next[name], self._carry[name])
        output = f"{_PREFIX}{answer.output}"
        if answer.kind == "index":
            return chosen_by_indices(graph, output, self._action.sizes)
        raw = graph.reshape(output, (1, self._size))
        if answer.squash == "tanh":
            raw = graph.add("Tanh", raw)
        return self._clipped(raw, answer.clip)

    def _mapping(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(A,) low, span, default and scale of the command."""
        answer, spec = self._answers.action, self._action
        low, high = np.array([spec.low, spec.high], np.float32)
        default = _spread(answer.default, self._size, "action: default")
        return low, high - low, default, _spread(answer.scale, self._size, "action: scale")

    def _motion(self, raw: str) -> tuple[str, str]:
        graph, slew = self._graph, self._action.max_change
        low, span, default, scale = self._mapping()
        wanted = self._scaled(raw, scale * 2.0 / span, (default - low) * 2.0 / span - 1.0)
        if slew < 2.0:
            step = graph.const(slew)
            least = graph.add("Sub", "prev_action", step)
            most = graph.add("Add", "prev_action", step)
            wanted = graph.add("Min", graph.add("Max", wanted, least), most)
        action = self._clipped(wanted, 1.0)
        return action, self._scaled(action, 0.5 * span, low + 0.5 * span)

    def _scaled(self, tensor: str, factor: np.ndarray, offset: np.ndarray) -> str:
        product = self._graph.add("Mul", tensor, self._graph.const(factor[None]))
        return self._graph.add("Add", product, self._graph.const(offset[None]))

    def _clipped(self, tensor: str, largest: float | None) -> str:
        if largest is None:
            return tensor
        ends = [self._graph.const(value) for value in (-largest, largest)]
        return self._graph.add("Clip", tensor, *ends)

    # ------------------------------------------------------------------ the whole

    def _adopted(self) -> Adopted:
        observed = self._observed
        spec = Spec(
            images={k: s for k, s in observed.items() if isinstance(s, ImageSpec)},
            vectors={k: s for k, s in observed.items() if isinstance(s, Vector)},
            action=self._action,
            period_s=self._answers.period_s,
        )
        taken = {*self._carry, "prev_action", "is_first", "action", "command"}
        if clash := sorted(taken & {*spec.inputs}):
            raise SettingsError(
                f"inputs {clash} have names that a policy uses itself; rename them"
            )
        sensors = [
            TensorInfo(name=k, dtype=s.dtype.name, shape=(1, *s.shape), meaning=s.meaning)
            for k, s in spec.inputs.items()
        ]
        carry = [_floats(name, shape, "carry") for name, shape in self._carry.items()]
        sent = _floats("prev_action", (1, self._size), "in [-1, 1], what was really sent")
        first = TensorInfo(name="is_first", dtype="bool", shape=(1,), meaning="forget the carry")
        outputs = [
            _floats("action", (1, self._size), "in [-1, 1], after the slew limit"),
            _floats("command", (1, self._action.command_size), "the same in the spec's units"),
            *(_floats(f"next_{name}", shape, "next carry") for name, shape in self._carry.items()),
        ]
        inputs = (*sensors, *carry, sent, first)
        try:
            model = self._graph.model(inputs, outputs)
        except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
            raise PolicyRefused(f"the network cannot be built into a policy: {error}") from error
        pairs = tuple(CarryPair(input=n, output=f"next_{n}") for n in self._carry)
        return Adopted(model, spec, inputs, tuple(outputs), pairs)


def _spread(values: tuple[float, ...], size: int, what: str) -> np.ndarray:
    """(size,) float32 of one number for all or one for each; ones where there are none."""
    if len(values) not in (0, 1, size):
        raise SettingsError(f"{what}: expected 1 number or {size}, got {len(values)}")
    return np.array(np.broadcast_to(np.asarray(values or (1.0,), np.float32), (size,)))


def _floats(name: str, shape: tuple[int, ...], meaning: str) -> TensorInfo:
    return TensorInfo(name=name, dtype="float32", shape=shape, meaning=meaning)

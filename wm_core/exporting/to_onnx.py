"""Traces a policy's graph once; every later version only exchanges its weights.

Tracing takes seconds and is done once per architecture; a new version is the same graph with
other initializers, which takes milliseconds.  That is sound only while every initializer that
depends on training carries its parameter's name, so tracing refuses a graph in which one is
missing (folded into a constant, merged or renamed).
"""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from wm_core.contract.card import CARD_KEY, PolicyCard, TensorInfo
from wm_core.exporting.split import divide_products, split_of

OPSET = 18
IR_VERSION = 8  #: what onnxruntime 1.15 and its successors read; torch writes a newer one


class Template:
    """Holds a traced graph and exchanges its weights.

    Args:
        model: checked, stripped, with every parameter as an initializer of the same name.
        parameters: the names of those initializers; every other one is a constant.
        observed: inputs that come with an observation: products of both sides are divided.
    """

    def __init__(
        self, model: onnx.ModelProto, parameters: Sequence[str], observed: Collection[str] = ()
    ) -> None:
        shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self._shapes = {name: shapes[name] for name in parameters}
        self._observed, self._model = observed, model
        divided = divide_products(model, observed) if observed else {}
        by_name = {tensor.name: tensor for tensor in model.graph.initializer}
        self._slots: dict[str, list[tuple[onnx.TensorProto, slice]]] = {
            name: [(by_name[part.name], slice(part.start, part.stop)) for part in divided[name]]
            if name in divided
            else [(by_name[name], slice(None))]
            for name in parameters
        }
        taken = {tensor.name for slots in self._slots.values() for tensor, _ in slots}
        self._constants = {n: t.raw_data for n, t in by_name.items() if n not in taken}

    def split(self) -> tuple[TensorInfo, ...]:
        """List the tensors between the graph's two halves, see ``exporting.split``."""
        return split_of(self._model, self._observed)

    def substitute(self, weights: Mapping[str, np.ndarray]) -> str:
        """Exchange the weights and return their hash, as ``weights_sha256`` defines it.

        Args:
            weights: every parameter by name, (...) float32 in its traced shape.
        """
        if weights.keys() != self._slots.keys():
            odd = sorted(weights.keys() ^ self._slots.keys())
            raise ValueError(f"weights differ from the traced graph's in {odd}")
        content = dict(self._constants)
        for name, slots in self._slots.items():
            value, shape = weights[name], self._shapes[name]
            if value.shape != shape or value.dtype != np.float32:
                want = f"{shape} float32"
                raise ValueError(f"{name}: expected {want}, got {value.shape} {value.dtype}")
            for slot, columns in slots:
                part = value if columns == slice(None) else value[:, columns]
                slot.raw_data = content[slot.name] = part.astype("<f4", copy=False).tobytes()
        return weights_sha256(content)

    def serialize(self, card: str) -> bytes:
        """The ONNX file with the present weights and ``card`` (JSON) in its metadata."""
        del self._model.metadata_props[:]
        self._model.metadata_props.add(key=CARD_KEY, value=card)
        data: bytes = self._model.SerializeToString(deterministic=True)
        return data


def weights_sha256(content: Mapping[str, bytes]) -> str:
    """Hash over the names and bytes of a graph's initializers, sorted by name."""
    digest = hashlib.sha256()
    for name in sorted(content):
        digest.update(name.encode() + b"\0" + len(content[name]).to_bytes(8, "little"))
        digest.update(content[name])
    return digest.hexdigest()


def read_weights_sha256(model: bytes) -> str:
    """The same hash, read from an ONNX file: what its card must say."""
    proto = onnx.load_model_from_string(model)
    return weights_sha256({t.name: t.raw_data for t in proto.graph.initializer})


def with_card(model: bytes, card: PolicyCard) -> bytes:
    """Exchange the card in an ONNX file."""
    proto = onnx.load_model_from_string(model)
    onnx.helper.set_model_props(proto, {CARD_KEY: card.model_dump_json()})
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def trace(
    module: nn.Module,
    inputs: Sequence[TensorInfo],
    outputs: Sequence[TensorInfo],
    observed: Collection[str] = (),
) -> Template:
    """Export ``module`` to a graph whose weights can be exchanged.

    Args:
        module: takes one tensor per entry of ``inputs`` and returns one per entry of ``outputs``,
            in order; in evaluation mode, on the CPU, without learned state outside parameters.
        inputs: name, dtype and shape of each input, batch axis of 1 included.
        outputs: the same of each output.
        observed: names of the inputs that come with an observation, see ``Template``.
    """
    arguments = tuple(_example(info) for info in inputs)
    names = {f"input.{i}": info.name for i, info in enumerate(inputs)}
    module = _with_plain_numbers(module)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            module,
            arguments,
            dynamo=True,
            opset_version=OPSET,
            input_names=[*names],
            output_names=[info.name for info in outputs],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = strip(program.model_proto)
    _name_inputs(model, names)
    onnx.checker.check_model(model, full_check=True)
    parameters = [name for name, _ in module.named_parameters()]
    _check_complete(model, dict(module.named_parameters()))
    return Template(model, parameters, observed)


def _name_inputs(model: onnx.ModelProto, names: Mapping[str, str]) -> None:
    """Give each input its name; a tensor inside the graph that has this name gets another.

    The tracer would give both the same name: a vector called ``low`` would then stand where the
    lower bounds of the action do.
    """
    graph, taken = model.graph, {*names.values()}
    inner = {tensor.name for tensor in graph.initializer}
    inner |= {name for node in graph.node for name in node.output}
    changed = {name: f"{name}.inner" for name in inner & taken} | {**names}
    for node in graph.node:
        node.input[:] = [changed.get(name, name) for name in node.input]
        node.output[:] = [changed.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.initializer, *graph.value_info):
        value.name = changed.get(value.name, value.name)


def _with_plain_numbers(module: nn.Module) -> nn.Module:
    """Copy with random weights, because tracing would fold a bias of zeros or a scale of ones."""
    module = copy.deepcopy(module)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.uniform_(0.1, 0.2, generator=generator)
    return module


def _example(info: TensorInfo) -> Tensor:
    if info.dtype == "bool":
        return torch.zeros(info.shape, dtype=torch.bool)
    return torch.full(info.shape, 0.5).to(getattr(torch, info.dtype))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter from reporting optional packages that it misses and its own past."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            # torch's exporter trips over torch's own deprecation; nothing that we could mend
            warnings.filterwarnings("ignore", ".*treespec, LeafSpec", FutureWarning)
            yield
    finally:
        logger.setLevel(level)


def strip(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` without what the tracer knows of its machine: paths, stack traces, names."""
    model.ir_version = IR_VERSION
    model.doc_string = ""
    graph = model.graph
    graph.name, graph.doc_string = "policy", ""
    entries = [*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info]
    for entry in entries:
        entry.doc_string = ""
        del entry.metadata_props[:]
    del graph.metadata_props[:], model.metadata_props[:]
    for tensor in graph.initializer:  # one way to hold numbers, so that one hash fits
        fixed = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name)
        tensor.CopyFrom(fixed)
    return model


def _check_complete(model: onnx.ModelProto, parameters: Mapping[str, Tensor]) -> None:
    """Raise unless every parameter is an initializer under its own name with its own values."""
    by_name = {t.name: t for t in model.graph.initializer}
    for name, parameter in parameters.items():
        if name not in by_name:
            raise RuntimeError(
                f"parameter {name!r} is not in the traced graph: a step does not use it, or it is "
                "folded, as the weight of a linear layer on three axes is"
            )
        if not np.array_equal(onnx.numpy_helper.to_array(by_name[name]), parameter.detach()):
            raise RuntimeError(f"parameter {name!r} was changed by tracing")
    if model.functions or any(node.domain for node in model.graph.node):
        raise RuntimeError("the traced graph has functions or operators of its own")
    forbidden = {"Loop", "If", "Scan"} & {node.op_type for node in model.graph.node}
    if forbidden:
        raise RuntimeError(f"the traced graph has control flow: {sorted(forbidden)}")

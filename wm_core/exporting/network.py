"""Reads another trainer's ONNX file: its tensors, what its metadata says, and what it lacks.

Sizes without a number, such as a batch, become 1; local functions are written out; the operators
are brought to the version that robots run.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import inliner, version_converter

from wm_core.contract.card import CARD_KEY, TensorInfo
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.onnx_cut import TYPES
from wm_core.contract.onnx_limits import check_limits
from wm_core.exporting.leapp import Bundle, read_bundle
from wm_core.exporting.to_onnx import OPSET, strip

_DTYPES = {number: name for name, number in TYPES.items()}


@dataclass(frozen=True)
class Network:
    """A network that maps observations to actions, without a card."""

    proto: onnx.ModelProto
    inputs: dict[str, TensorInfo]  #: by name, sizes known
    outputs: dict[str, TensorInfo]
    metadata: dict[str, str]  #: what the trainer wrote into the file
    bundle: Bundle | None = None  #: what stands beside the file

    @classmethod
    def load(cls, path: Path) -> Network:
        """Read the network in an ONNX file, or in the LEAPP bundle of a YAML file.

        Raises:
            PolicyRefused: for a file that is none, has a card already, or holds what no policy
                may: control flow, foreign operators, tensors of unknown rank.
        """
        bundle = read_bundle(path) if path.suffix in (".yaml", ".yml") else None
        path = path if bundle is None else bundle.model
        try:
            proto = onnx.load(path)  # with weights that lie in files beside it
        except Exception as error:  # protobuf's and onnx's errors share no public base class
            raise PolicyRefused(f"{path}: expected an ONNX file, got: {error}") from error
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        if CARD_KEY in metadata:
            raise PolicyRefused(
                f"{path} has a card: it is a policy of this project; copy its whole folder"
            )
        proto = _current(path, proto)
        graph = proto.graph
        weights = {tensor.name for tensor in graph.initializer}
        given = [value for value in graph.input if value.name not in weights]
        inputs, outputs = (
            {v.name: _info(path, v) for v in values} for values in (given, graph.output)
        )
        del graph.input[:]
        graph.input.extend(given)
        check_limits(_bare(proto))
        return cls(proto, inputs, outputs, metadata, bundle)


def _bare(proto: onnx.ModelProto) -> bytes:
    """``proto`` as it will stand in a policy: of its format, without what only describes it."""
    bare = onnx.ModelProto()
    bare.CopyFrom(proto)
    bare = strip(bare)
    del bare.opset_import[:], bare.training_info[:], bare.graph.quantization_annotation[:]
    bare.opset_import.add(domain="", version=OPSET)
    del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.type.tensor_type.ClearField("shape")  # which may name sizes that are 1 here
    data: bytes = bare.SerializeToString()
    return data


def _current(path: Path, proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` without functions of its own, at the version of operators that robots run."""
    if proto.functions:
        proto = inliner.inline_local_functions(proto)
    foreign = sorted({node.domain for node in proto.graph.node} - {"", "ai.onnx"})
    if foreign:
        raise PolicyRefused(f"{path}: expected operators of ai.onnx, it has some of {foreign}")
    version = max(
        (o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=1
    )
    if version == OPSET:
        return proto
    try:
        return version_converter.convert_version(proto, OPSET)
    except Exception as error:  # the converter raises RuntimeError, and others from its C++ part
        raise PolicyRefused(
            f"{path}: its operators are of opset {version} and cannot be brought to {OPSET}; "
            f"export it again with opset_version={OPSET} ({str(error).splitlines()[0]})"
        ) from error


def _info(path: Path, value: onnx.ValueInfoProto) -> TensorInfo:
    """Describe a tensor, whose sizes without a number become 1."""
    tensor = value.type.tensor_type
    if tensor.elem_type not in _DTYPES or not tensor.HasField("shape"):
        raise PolicyRefused(
            f"{path}: {value.name!r} has a type or rank that no policy has; expected one of "
            f"{sorted(TYPES)} with a shape"
        )
    shape = tuple(dim.dim_value if dim.HasField("dim_value") else 1 for dim in tensor.shape.dim)
    if 0 in shape:
        raise PolicyRefused(f"{path}: {value.name!r} is empty: {shape}")
    for dim, size in zip(tensor.shape.dim, shape, strict=True):
        dim.dim_value = size
    return TensorInfo(name=value.name, dtype=_DTYPES[tensor.elem_type], shape=shape)

"""Writes and reads LEAPP bundles: a YAML file beside an ONNX file and its initial values.

The YAML names each input and output, which output becomes which input of the next step
(``feedback_flow``), and which values an episode begins with, in a safetensors file.  Both formats
are small enough to be written here, so a machine needs neither package.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml

from wm_core.contract.card import PolicyCard, TensorInfo
from wm_core.contract.errors import PolicyRefused
from wm_core.contract.files import json_text, write_durably

VERSION, CONFIG_VERSION = "0.7.2", "1.3"  #: of the format that is written
NODE = "policy"  #: name of the one model of a bundle
_MAX_YAML_BYTES, _MAX_VALUES_BYTES = 1_000_000, 500_000_000
_POSITION, _VELOCITY, _EFFORT = (f"target/joint/{w}" for w in ("position", "velocity", "effort"))
_KINDS = {"rad": _POSITION, "rad/s": _VELOCITY, "N m": _EFFORT}  #: of a command, by its unit


class Bundle(NamedTuple):
    """What a bundle says beside its ONNX file."""

    model: Path
    state: list[dict[str, Any]]  #: input, output and initial values of what is carried
    names: dict[str, list[str]]  #: tensor -> name of each number, where it says so
    kinds: dict[str, str]  #: tensor -> what LEAPP says it is
    outputs: list[str]  #: that leave the pipeline
    period_s: float | None


def write_bundle(folder: Path, onnx_name: str, card: PolicyCard) -> None:
    """Write a bundle beside the policy in ``folder``; its carry begins as zeros.

    Args:
        folder: holds the ONNX file.
        onnx_name: name of that file; the bundle is called as it is, with the suffix ``.yaml``.
        card: of the policy.
    """
    data = (folder / onnx_name).read_bytes()
    stem = Path(onnx_name).stem
    carried = {pair.input: pair.output for pair in card.carry}
    shapes = {info.name: info.shape for info in card.inputs}
    values = {f"{NODE}/{n}": np.zeros(shapes[n], np.float32) for n in carried}
    pipeline: dict[str, Any] = {
        "configs": {"frequency": 1.0 / card.spec.period_s},
        "data_flow": {},
        "feedback_flow": {f"{NODE}/{out}": [f"{NODE}/{name}"] for name, out in carried.items()},
        "inputs": {NODE: [info.name for info in card.inputs if info.name not in carried]},
        "outputs": {
            NODE: [info.name for info in card.outputs if info.name not in carried.values()]
        },
    }
    if values:
        pipeline["initial_values"] = f"{stem}_initial_values.safetensors"
        write_durably(folder / pipeline["initial_values"], safetensors(values))
    model = {
        "inputs": [_described(info, card) for info in card.inputs],
        "outputs": [_described(info, card) for info in card.outputs],
        "parameters": {
            "backend": "onnx",
            "model_path": onnx_name,
            "md5sum": hashlib.md5(data, usedforsecurity=False).hexdigest(),
            "sha256sum": hashlib.sha256(data).hexdigest(),
        },
    }
    about = {"leapp version": VERSION, "leapp config version": CONFIG_VERSION}
    bundle = {"models": {NODE: model}, "pipeline": pipeline, "system information": about}
    text = yaml.safe_dump(bundle, sort_keys=False, default_flow_style=None)
    write_durably(folder / f"{stem}.yaml", text.encode())


def _described(info: TensorInfo, card: PolicyCard) -> dict[str, Any]:
    """Describe one tensor as LEAPP does; keys that it does not know it passes on."""
    entry: dict[str, Any] = {
        "name": info.name,
        "dtype": info.dtype,
        "shape": list(info.shape),
        "type": "tensor",
    }
    spec, names = card.spec, tuple[str, ...]()
    if info.name in spec.vectors:
        names = spec.vectors[info.name].names
    elif info.name in ("action", "prev_action", "command") and info.shape[-1] == spec.action.size:
        names = spec.action.names
    if names:
        entry["element_names"] = [None, list(names)]
    if info.name == "command" and not spec.action.discrete:
        units = spec.action.units
        if len({*units}) == 1 and units[0] in _KINDS:
            entry["kind"] = _KINDS[units[0]]
        limits = {"low": list(spec.action.low), "high": list(spec.action.high)}
        entry |= limits | ({"units": list(units)} if units else {})
    if info.meaning:
        entry["meaning"] = info.meaning
    return entry


def read_bundle(path: Path) -> Bundle:
    """Read the bundle whose YAML file is at ``path``; its model's hash is checked.

    Raises:
        PolicyRefused: for what is no bundle, has several models or none in ONNX, or is damaged.
    """
    found = _yaml(path)
    try:
        return _bundle(path, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise PolicyRefused(f"{path}: expected a LEAPP bundle, got: {error!r}") from error


def _yaml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            text = file.read(_MAX_YAML_BYTES + 1)
        found = yaml.safe_load(text.decode()) if len(text) <= _MAX_YAML_BYTES else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise PolicyRefused(f"{path}: expected a LEAPP bundle's YAML, got: {error}") from error
    if not isinstance(found, dict) or not {"models", "pipeline"} <= {*found}:
        raise PolicyRefused(f"{path}: expected a LEAPP bundle with models and a pipeline")
    return found


def _bundle(path: Path, found: Mapping[str, Any]) -> Bundle:
    models, pipeline = found["models"], found["pipeline"]
    if len(models) != 1:
        raise PolicyRefused(
            f"{path}: expected one model, the bundle has {len(models)} ({', '.join(models)}); "
            "export the pipeline as a single node"
        )
    ((node, model),) = models.items()
    about = model["parameters"]
    if about["backend"] != "onnx":
        raise PolicyRefused(
            f"{path}: expected a model in ONNX, it is {about['backend']!r}; export with "
            "export_with='onnx'"
        )
    file = _beside(path, str(about["model_path"]))
    got = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "no such file"
    if got != about["sha256sum"]:
        raise PolicyRefused(f"{file}: expected sha256 {about['sha256sum']}, got {got}")
    values = {}
    if pipeline.get("initial_values"):
        values = read_safetensors(_beside(path, str(pipeline["initial_values"])))
    state = [
        {"input": target.split("/")[1], "output": source.split("/")[1]}
        | _initial(values.get(target))
        for source, targets in (pipeline.get("feedback_flow") or {}).items()
        for target in targets
    ]
    tensors = [*model["inputs"], *model["outputs"]]
    names = {t["name"]: n for t in tensors if (n := _names(t.get("element_names")))}
    kinds = {str(t["name"]): str(t["kind"]) for t in tensors if t.get("kind")}
    rate = (pipeline.get("configs") or {}).get("frequency")
    period_s = None if rate is None else 1.0 / float(rate)
    return Bundle(file, state, names, kinds, [*pipeline["outputs"].get(node, [])], period_s)


def _beside(path: Path, name: str) -> Path:
    """The file ``name`` in the bundle's own folder; never another."""
    if Path(name).name != name:
        raise PolicyRefused(f"{path}: expected a file beside it, it names {name!r}")
    return path.parent / name


def _initial(value: np.ndarray | None) -> dict[str, Any]:
    return {} if value is None else {"initial": value.astype(np.float32).reshape(-1).tolist()}


def _names(axes: Any) -> list[str]:
    """The names along the last axis that has any."""
    if not isinstance(axes, list):
        return []
    if axes and all(isinstance(word, str) for word in axes):
        return list(axes)
    listed = [axis for axis in axes if isinstance(axis, list)]
    return [str(word) for word in listed[-1]] if listed else []


# ------------------------------------------------------------------ safetensors

_TYPES = {"F32": "<f4", "F64": "<f8", "I64": "<i8", "I32": "<i4", "U8": "u1", "BOOL": "?"}


def safetensors(arrays: Mapping[str, np.ndarray]) -> bytes:
    """Encode float32 ``arrays`` (...) by name: a JSON header of their places, then their bytes."""
    header, body = dict[str, Any](), b""
    for name, array in arrays.items():
        data = np.ascontiguousarray(array, "<f4").tobytes()
        place = [len(body), len(body) + len(data)]
        header[name] = {"dtype": "F32", "shape": list(array.shape), "data_offsets": place}
        body += data
    text = json_text(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + body


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """Read arrays (...) by name; raises ``PolicyRefused`` for what is no such file."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_VALUES_BYTES + 1)
        (size,) = struct.unpack("<Q", data[:8])
        header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
        header.pop("__metadata__", None)
        arrays = {}
        for name, about in header.items():
            begin, end = about["data_offsets"]
            dtype, shape = np.dtype(_TYPES[about["dtype"]]), about["shape"]
            if not 0 <= begin <= end <= len(body) or end - begin != (
                math.prod(shape) * dtype.itemsize
            ):
                raise ValueError(f"{name!r} lies at {begin} .. {end} of {len(body)} bytes")
            arrays[name] = np.frombuffer(body[begin:end], dtype).reshape(shape)
        return arrays
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        raise PolicyRefused(f"{path}: expected safetensors, got: {error}") from error

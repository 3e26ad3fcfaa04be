"""Defines a policy's card (inside the ONNX file) and its manifest (beside it).

The card says what the graph reads and writes; the manifest says which bytes are meant.  A policy
on disk is three files: ``policy.onnx``, ``policy.golden.npz`` and ``policy.manifest.json``.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar, Literal, TypeVar

from pydantic import Field, ValidationError

from wm_core.contract.errors import PolicyRefused
from wm_core.contract.spec import Frozen, Spec

CARD_KEY = "wm_card"  #: the key in the ONNX file's metadata_props

_Document = TypeVar("_Document", bound="_PolicyDocument")


class TensorInfo(Frozen):
    """Describes one input or output of the graph, batch axis of 1 included."""

    name: str
    dtype: Literal["bool", "uint8", "int16", "uint16", "int32", "int64", "float32"]
    shape: tuple[int, ...]
    meaning: str = ""


class CarryPair(Frozen):
    """Names an output that becomes the input of the next step; it starts as zeros."""

    input: str
    output: str


class _PolicyDocument(Frozen):
    """Is read from JSON that may come from anywhere."""

    what: ClassVar[str]  #: names it in an error

    @classmethod
    def parse(cls: type[_Document], text: str | bytes) -> _Document:
        """Read it from ``text`` (JSON); raises ``PolicyRefused`` where that does not fit."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            raise PolicyRefused(f"policy {cls.what} does not fit version 1: {error}") from error


class PolicyCard(_PolicyDocument):
    """Describes a policy; it travels inside the ONNX file."""

    what = "card"
    card_version: Literal[1] = 1
    preset: str
    size: str
    task: str = ""
    spec: Spec
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    carry: tuple[CarryPair, ...]
    noise: tuple[str, ...] = ()  #: inputs that take uniforms in (0, 1); 0.5 in the last: the mean
    max_obs_age_s: float = Field(gt=0)  #: an older observation calls for the safe action
    version: int = Field(ge=0)  #: of the policy within its run; 0 is untrained
    learner_updates: int = Field(0, ge=0)
    agent_steps: int = Field(0, ge=0)  #: steps of experience that had been seen
    run_id: str = ""
    commit: str = ""
    weights_sha256: str = ""
    golden_sha256: str = ""
    opset: int = 18
    exporter: dict[str, str] = Field(default_factory=dict)  #: package -> version
    created: str = ""  #: UTC, ISO 8601


class Blob(Frozen):
    """Names one file of a policy by its content."""

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Manifest(_PolicyDocument):
    """States which bytes make up one published version of a policy."""

    what = "manifest"
    manifest_version: Literal[1] = 1
    channel: str = "main"
    version: int = Field(ge=0)
    parent: int = -1  #: the version that this one was trained on from; -1 for none
    policy: Blob
    golden: Blob
    weights_sha256: str = ""
    learner_updates: int = Field(0, ge=0)
    created: str = ""


def blob_of(name: str, data: bytes) -> Blob:
    """Name the content ``data``, under the file name ``name``."""
    return Blob(name=name, sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))


def check_bytes(data: bytes, blob: Blob) -> None:
    """Raise ``PolicyRefused`` unless ``data`` is exactly the content that ``blob`` names."""
    if len(data) != blob.bytes:
        raise PolicyRefused(f"{blob.name}: expected {blob.bytes} bytes, got {len(data)}")
    got = hashlib.sha256(data).hexdigest()
    if got != blob.sha256:
        raise PolicyRefused(f"{blob.name}: expected sha256 {blob.sha256}, got {got}")

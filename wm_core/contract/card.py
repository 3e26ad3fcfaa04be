"""Defines a policy's card (inside the ONNX file) and its manifest (beside it).

The card says what the graph reads and writes; the manifest says which bytes are meant.  A policy
on disk is three files: ``policy.onnx``, ``policy.golden.npz`` and ``policy.manifest.json``.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    AfterValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from wm_core.contract.errors import PolicyRefused, shown
from wm_core.contract.spec import Frozen, Spec

_LONGEST_NAME = 200
CARD_KEY = "wm_card"  #: the key in the ONNX file's metadata_props
MAX_VERSION = 2**31 - 1  #: of a policy: steps carry it, and indexes hold it in 32 bits

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


class _Finite(Frozen):
    """Holds finite numbers only: no comparison with NaN or infinity means anything."""

    model_config = ConfigDict(allow_inf_nan=False)


class Tolerance(_Finite):
    """States how far a policy may answer from its golden rollout, relative to an output's scale.

    The robot's owner bounds it: see ``contract.golden.accepted``.
    """

    largest: float = Field(gt=0, description="Largest accepted deviation of a single number.")
    mean: float = Field(gt=0, description="Largest accepted mean deviation of an output.")

    @model_validator(mode="after")
    def _mean_is_smaller(self) -> Tolerance:
        if not self.mean <= self.largest:
            raise ValueError(f"mean {self.mean} must be at most largest {self.largest}")
        return self


class Deviation(_Finite):
    """Says how far a quantised policy's actions are from its original's over stored steps."""

    mean: float = Field(ge=0, description="Mean difference of an action, in [-1, 1] units.")
    largest: float = Field(ge=0, description="Largest difference of an action, same units.")
    steps: int = Field(gt=0, description="Number of stored steps that were replayed.")


class ReturnLoss(_Finite):
    """Says what a quantised policy lost of its original's return, episode by episode."""

    loss: float = Field(description="Mean loss as a share of ``scale``; below 0 it is a gain.")
    low: float = Field(description="Lower end of the 95 % interval of ``loss``.")
    high: float = Field(description="Upper end of the 95 % interval of ``loss``.")
    episodes: int = Field(gt=1, description="Number of episodes, with the same seeds for both.")
    original: float = Field(description="Mean return of the original, in units of reward.")
    quantized: float = Field(description="Mean return of the quantised policy, same units.")
    scale: float = Field(gt=0, description="Return that a loss of 1 stands for, same units.")


class _PolicyDocument(_Finite):
    """Is read from JSON that may come from anywhere."""

    what: ClassVar[str]  #: names it in an error

    @classmethod
    def parse(cls: type[_Document], text: str | bytes) -> _Document:
        """Read it from ``text`` (JSON); raises ``PolicyRefused`` where that does not fit."""
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            # without what stands there, which may be any file of the robot
            found = error.errors(include_url=False, include_input=False, include_context=False)
            wrong = "; ".join(f"{'.'.join(map(str, e['loc']))} {e['msg']}" for e in found[:5])
            raise PolicyRefused(
                f"policy {cls.what} does not fit version 1: {shown(wrong)}"
            ) from None


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
    version: int = Field(ge=0, le=MAX_VERSION)  #: of the policy within its run; 0 is untrained
    learner_updates: int = Field(0, ge=0)
    agent_steps: int = Field(0, ge=0)  #: steps of experience that had been seen
    run_id: str = ""
    commit: str = ""
    weights_sha256: str = ""
    golden_sha256: str = ""
    opset: int = 18
    exporter: dict[str, str] = Field(default_factory=dict)  #: package -> version
    created: str = ""  #: UTC, ISO 8601
    # Written only where they are set: see ``_without_unset``.
    tolerance: Tolerance | None = None  #: of the golden rollout; None: that of float32
    quantized: Literal["", "int8"] = ""  #: precision of the weights, where it is reduced
    return_loss: ReturnLoss | None = None  #: of a quantised policy, where its task could be run
    action_deviation: Deviation | None = None  #: of a quantised policy over stored steps
    surprise_limit: float | None = Field(
        None, gt=0
    )  #: nats; more was hardly ever seen in training
    #: tensors of the graph, computed without an observation, that the rest of it reads
    split: tuple[TensorInfo, ...] = ()
    frame_id: str = ""  #: frame in which the command is meant, such as base_link
    resize: dict[str, Literal["area", "nearest"]] = Field(default_factory=dict)  #: by image input
    #: how the task's environment is made, where that is not by default: a JSON object
    task_settings: str = Field("", max_length=65536)

    @model_serializer(mode="wrap")
    def _without_unset(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out later fields that say nothing, so that earlier versions read the card too."""
        text: dict[str, Any] = fields(self)
        return {name: v for name, v in text.items() if v or name not in _LATER}


_LATER = (
    "tolerance", "quantized", "return_loss", "action_deviation", "surprise_limit", "split",
    "frame_id", "resize", "task_settings",
)  # fmt: skip


def _plain_name(name: str) -> str:
    plain = Path(name).name == name and name not in ("", "..") and name.isprintable()
    if not plain or len(name) > _LONGEST_NAME:
        raise ValueError(f"expected a plain file name, got {shown(name)!r}")
    return name


class Blob(Frozen):
    """Names one file of a policy by its content."""

    name: Annotated[str, AfterValidator(_plain_name)]
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(gt=0)


class Manifest(_PolicyDocument):
    """States which bytes make up one published version of a policy."""

    what = "manifest"
    manifest_version: Literal[1] = 1
    channel: str = "main"
    version: int = Field(ge=0, le=MAX_VERSION)
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

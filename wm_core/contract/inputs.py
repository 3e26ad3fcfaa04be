"""Defines the kinds of sensor: one class each, which knows all that sets its kind apart.

A kind states its shape and dtype, how a recording holds it, how it is scaled for the network and
back, which Gymnasium boxes give it, and how it is drawn.  It is an image (H, W, C) or a vector
(n,); the rest of the project asks for nothing else.  Register a kind of your own by
``register_input``; its settings then name it under ``kind``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from wm_core.contract.errors import SpecMismatch, nearest
from wm_core.contract.frozen import Frozen, Name

MAX_PIXELS = 8192  #: rows or columns of an image
MAX_NUMBERS = 65536  #: in a vector or an action
MAX_INPUTS = 64  #: sensors of a policy

Fit = Literal["crop", "pad", "squeeze"]  #: how a frame of another shape becomes the image
#: how a camera's images are recorded: without loss, as JPEG pictures, or as they compress
CodecRule = Literal["zstd", "jpeg", "auto"]
FIT_TEXT = (
    "Rule for frames of another shape: crop the sides, pad with black (small frames are enlarged "
    "by a whole factor), or squeeze."
)


class Input(Frozen):
    """Describes one sensor of a policy; a subclass is one kind of sensor."""

    kind: ClassVar[str]  #: its name in ``INPUTS``
    implied: ClassVar[bool] = False  #: a spec need not write ``kind``: the other fields tell it
    dtype: ClassVar[np.dtype[Any]]  #: of the arrays, in the policy file too
    what: ClassVar[str]  #: shape and dtype in words
    meaning: ClassVar[str]  #: what a policy's card says of the input

    @property
    def shape(self) -> tuple[int, ...]:
        """Give the shape of one observation."""
        raise NotImplementedError

    @property
    def recorded_bytes(self) -> int:
        """Bound the bytes of one observation in a recording, headers apart."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def reach(self) -> str:
        """Describe the range of values or name the elements, for a person to read."""
        return "0 .. 255"

    @classmethod
    def of_box(cls, box: Any) -> Input | None:
        """Give the input that a Gymnasium ``Box`` is, at its own size; None if of another kind."""
        raise NotImplementedError

    def scaled(self, raw: Any) -> Any:
        """Turn a tensor (..., *shape) of observations into floats of the network's range."""
        raise NotImplementedError

    def unscaled(self, value: Any) -> Any:
        """Turn a tensor (..., *shape) of floats back into observations; inverts ``scaled``."""
        raise NotImplementedError

    def random(self, rng: np.random.Generator) -> np.ndarray:
        """Draw one observation (*shape) of noise."""
        raise NotImplementedError

    def check(self, key: str, value: np.ndarray) -> None:
        """Raise ``SpecMismatch`` unless ``value`` has the shape (*shape) and dtype of ``key``."""
        if value.shape != self.shape or value.dtype != self.dtype:
            raise SpecMismatch(
                f"{key!r}: expected {self.shape} {self.dtype}, got {value.shape} {value.dtype}"
            )

    @model_serializer(mode="wrap")
    def _named(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return fields(self) if self.implied else {"kind": self.kind, **fields(self)}


_Kind = TypeVar("_Kind", bound=type[Input])
INPUTS: dict[str, type[Input]] = {}  #: kinds by name; a box is tried on them in this order


def register_input(kind: _Kind) -> _Kind:
    """Add a kind of sensor, as a decorator of its class."""
    INPUTS[kind.kind] = kind
    return kind


class ImageSpec(Input):
    """Describes one camera at the network's size; pixels of 0 .. 255 are scaled to 0 .. 1.

    ``ImageSpec(...)`` itself makes an RGB or, with one channel, a Mono.
    """

    height: int = Field(
        64, gt=0, le=MAX_PIXELS, description="Rows of the image that the network sees, pixels."
    )
    width: int = Field(
        64, gt=0, le=MAX_PIXELS, description="Columns of the image that the network sees, pixels."
    )
    channels: Literal[1, 3] = Field(3, description="Numbers per pixel: 3 colours, or 1.")
    fit: Fit = Field("crop", description=FIT_TEXT)

    encoding: ClassVar[str]  #: of the ``sensor_msgs/msg/Image`` that a recording holds
    resize: ClassVar[Literal["area", "nearest"]] = "area"  #: see ``contract.image``
    dtype = np.dtype(np.uint8)

    def __new__(cls, /, **fields: Any) -> ImageSpec:
        """Make the kind of image that ``channels`` tells."""
        kind = (Mono if fields.get("channels") == 1 else RGB) if cls is ImageSpec else cls
        return super().__new__(kind)

    @model_validator(mode="wrap")
    @classmethod
    def _of_its_kind(cls, value: Any, handler: Callable[[Any], ImageSpec]) -> ImageSpec:
        """Read settings that name no kind as an RGB or a Mono, as the constructor does."""
        if cls is ImageSpec and isinstance(value, dict):
            if (channels := value.get("channels", 3)) not in (1, 3):
                raise ValueError(f"channels: expected 1 or 3, got {channels!r}")
            return (Mono if channels == 1 else RGB).model_validate(value)
        return handler(value)

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.height, self.width, self.channels)

    @classmethod
    def of_box(cls, box: Any) -> ImageSpec | None:
        shape: tuple[int, ...] = box.shape or ()
        channels = cls.model_fields["channels"].default
        if box.dtype != cls.dtype or len(shape) != 3 or shape[2] != channels:
            return None
        return cls(height=shape[0], width=shape[1])

    @model_serializer(mode="wrap")
    def _named(self, fields: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the rule that every image had before there were others."""
        said = fields(self) if self.implied else {"kind": self.kind, **fields(self)}
        return {k: v for k, v in said.items() if k != "fit" or v != "crop"}

    def scaled(self, raw: Any) -> Any:
        if raw.is_floating_point():
            raise SpecMismatch(f"expected pixels of 0 .. 255 as {self.dtype}, got {raw.dtype}")
        return raw.float().mul_(1.0 / 255.0)  # in place: one pass over memory fewer

    def unscaled(self, value: Any) -> Any:
        return (value * 255.0).round().byte()

    def known(self, raw: Any) -> Any:
        """Mark the pixels of a tensor ``raw`` (..., H, W, C) that say anything; None: all."""
        return None

    def picture(self, raw: np.ndarray) -> np.ndarray:
        """Draw observations (..., H, W, C) in colours (..., H, W, 3) uint8."""
        return np.repeat(raw, 3 // self.channels, axis=-1)

    def scene(self, shade: np.ndarray) -> np.ndarray:
        """Make an observation (..., H, W, C) that shows the shades (..., H, W, C) uint8."""
        return shade

    def random(self, rng: np.random.Generator) -> np.ndarray:
        return self.scene(rng.integers(0, 256, self.shape, dtype=np.uint8))


@register_input
class RGB(ImageSpec):
    """Describes a colour camera, (H, W, 3) uint8."""

    channels: Literal[3] = 3
    kind, implied, encoding = "RGB", True, "rgb8"
    what, meaning = "(H, W, 3) uint8", "RGB, from contract.image"


@register_input
class Mono(ImageSpec):
    """Describes a grey camera, (H, W, 1) uint8."""

    channels: Literal[1] = 1
    kind, implied, encoding = "mono", True, "mono8"
    what, meaning = "(H, W, 1) uint8", "mono, from contract.image"


@register_input
class Depth(ImageSpec):
    """Describes a depth camera, (H, W, 1) uint16 millimetres, 0 where nothing is known.

    The network sees ``near_mm`` .. ``far_mm`` as 0 .. 1 and the unknown as 0, which no distance
    beyond ``near_mm`` is; the world model learns nothing from an unknown pixel.
    """

    channels: Literal[1] = 1
    near_mm: int = Field(0, ge=0, description="Distance that the network sees as 0, millimetres.")
    far_mm: int = Field(
        10_000, gt=0, lt=2**16, description="Distance that the network sees as 1, millimetres."
    )

    kind, encoding, resize = "depth", "16UC1", "nearest"
    what, meaning = "(H, W, 1) uint16", "depth, from contract.image"
    dtype = np.dtype(np.uint16)

    @model_validator(mode="after")
    def _near_is_near(self) -> Depth:
        if self.near_mm >= self.far_mm:
            raise ValueError(f"near_mm {self.near_mm} must be below far_mm {self.far_mm}")
        return self

    @property
    def reach(self) -> str:
        return f"{self.near_mm} .. {self.far_mm} mm"

    @classmethod
    def of_box(cls, box: Any) -> ImageSpec | None:
        image = super().of_box(box)
        if image is None:
            return None
        near = int(box.low.min())  # constant arrays have a range too
        reach = {"near_mm": near, "far_mm": max(int(box.high.max()), near + 1)}
        return cls(height=image.height, width=image.width, **reach)

    def scaled(self, raw: Any) -> Any:
        if raw.is_floating_point():
            raise SpecMismatch(f"expected millimetres as {self.dtype}, got {raw.dtype}")
        beyond = raw.float() - self.near_mm
        return (beyond * (1.0 / (self.far_mm - self.near_mm))).clamp(0.0, 1.0)

    def unscaled(self, value: Any) -> Any:
        return (value * (self.far_mm - self.near_mm) + self.near_mm).round().int()

    def known(self, raw: Any) -> Any:
        return raw.float() > 0.0

    def picture(self, raw: np.ndarray) -> np.ndarray:
        far = np.clip((raw - float(self.near_mm)) / (self.far_mm - self.near_mm), 0.0, 1.0)
        shade = np.where(raw > 0, np.rint(255.0 - 200.0 * far), 0.0).astype(np.uint8)
        return np.repeat(shade, 3, axis=-1)

    def scene(self, shade: np.ndarray) -> np.ndarray:
        share = shade.astype(np.int64) * (self.far_mm - self.near_mm) // 255
        return np.where(shade == 0, 0, self.near_mm + share).astype(self.dtype)


@register_input
class Vector(Input):
    """Describes a vector of measurements, (size,) float32 in SI units, scaled by symlog."""

    size: int = Field(gt=0, le=MAX_NUMBERS, description="Numbers in the vector, at least one.")
    names: tuple[Name, ...] = Field(
        (),
        max_length=MAX_NUMBERS,
        description="One name per number, where the source names them.",
    )

    kind, implied = "vector", True
    what, meaning = "(n,) float32", "SI units"
    dtype = np.dtype(np.float32)

    @property
    def shape(self) -> tuple[int]:
        return (self.size,)

    @property
    def recorded_bytes(self) -> int:
        return 8 * self.size + sum(8 + len(name.encode()) for name in self.names)

    @property
    def reach(self) -> str:
        return ", ".join(self.names)

    @classmethod
    def of_box(cls, box: Any) -> Vector | None:
        shape: tuple[int, ...] = box.shape or ()
        return cls(size=shape[0]) if box.dtype == cls.dtype and len(shape) == 1 else None

    def scaled(self, raw: Any) -> Any:
        return raw.sign() * raw.abs().log1p()

    def unscaled(self, value: Any) -> Any:
        return value.sign() * value.abs().expm1()

    def random(self, rng: np.random.Generator) -> np.ndarray:
        return rng.normal(0, 1, self.size).astype(np.float32)


VectorSpec = Vector


def read_inputs(value: Any, implied: type[Input]) -> Any:
    """Read inputs by name from settings; one that states no ``kind`` is an ``implied``."""
    if not isinstance(value, dict):
        return value
    if len(value) > MAX_INPUTS:
        raise ValueError(f"expected at most {MAX_INPUTS} inputs, got {len(value)}")
    found = {}
    for key, fields in value.items():
        try:
            found[key] = _read_input(dict(fields), implied) if isinstance(fields, dict) else fields
        except ValidationError as error:
            why = "; ".join(
                ": ".join([*map(str, e["loc"]), e["msg"].removeprefix("Value error, ")])
                for e in error.errors()
            )
            raise ValueError(f"{key!r}: {why}") from error
        except ValueError as error:
            raise ValueError(f"{key!r}: {error}") from error
    return found


def _read_input(fields: dict[str, Any], implied: type[Input]) -> Input:
    if "kind" not in fields:
        return implied.model_validate(fields)
    name = str(fields.pop("kind"))
    if name not in INPUTS:
        raise ValueError(nearest(name, INPUTS, what="kind of input"))
    if not issubclass(INPUTS[name], implied):
        raise ValueError(f"expected a kind of {implied.__name__}, got {name!r}")
    return INPUTS[name](**fields)


def input_of(box: Any) -> Input | None:
    """Find the kind of input that a Gymnasium ``Box`` is, at its own size; None: no kind."""
    found = (kind.of_box(box) for kind in INPUTS.values())
    return next((given for given in found if given is not None), None)

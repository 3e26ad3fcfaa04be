"""Names the columns of a LeRobotDataset for a spec, and fills the row of a step.

LeRobot keeps the reward that an action earned in the row of that action, as ``next.reward``; here
a reward arrives with the observation that it led to, one row later.  Both are written: the
columns of ``EXTRA`` hold a step as it was stored, so that the way back loses nothing.
"""

from __future__ import annotations

import io
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from wm_core.contract.inputs import ImageSpec
from wm_core.contract.spec import Spec
from wm_core.contract.step import NUMBERS, Step

_PNG_LEVEL = 1  # lossless at every level; the first is several times as fast
_KINDS = {"f": "float64", "b": "bool", "i": "int64"}
#: columns that every LeRobotDataset has
INDEX = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}
NEXT = {"next.reward": "float32", "next.done": "bool"}
#: columns that LeRobot does not know, of one number each
EXTRA = {
    **{name: _KINDS[dtype.kind] for name, dtype in NUMBERS.items()},
    "stamp_ns": "int64",
    "has_requested_action": "bool",
}


class Feature(NamedTuple):
    """Describes one column."""

    dtype: str  #: as LeRobot names it: that of NumPy, ``image`` or ``video``
    shape: tuple[int, ...]
    names: tuple[str, ...] | None
    info: dict[str, Any] | None = None

    @property
    def declared(self) -> dict[str, Any]:
        """Describe it as ``meta/info.json`` does."""
        names = None if self.names is None else list(self.names)
        said = {"dtype": self.dtype, "shape": list(self.shape), "names": names}
        return said if self.info is None else {**said, "info": self.info}


def feature_names(spec: Spec) -> dict[str, str]:
    """Name the LeRobot feature of each input; a vector that is alone is ``observation.state``."""
    alone = len(spec.vectors) == 1
    return {
        **{key: f"observation.images.{key}" for key in spec.images},
        **{key: "observation.state" if alone else f"observation.{key}" for key in spec.vectors},
    }


def features_of(spec: Spec, *, video: bool) -> dict[str, Feature]:
    """Describe every column of a dataset of ``spec``, by its name.

    Args:
        spec: of the steps.
        video: colour cameras as video; others stay images, which are lossless.
    """
    names = feature_names(spec)
    features = {names[key]: _image(image, video=video) for key, image in spec.images.items()}
    for key, vector in spec.vectors.items():
        features[names[key]] = Feature("float32", vector.shape, _fit(vector.names, vector.size))
    size = spec.action.size
    labels = _fit(spec.action.names, size)
    features["action"] = Feature("float32", (size,), labels)
    features["requested_action"] = Feature("float32", (size,), labels)
    for name, dtype in (NEXT | EXTRA | INDEX).items():
        features[name] = Feature(dtype, (1,), None)
    return features


def step_row(step: Step, spec: Spec, features: dict[str, Feature]) -> dict[str, Any]:
    """Give what a step itself says, by column: arrays (n,), numbers, and images as PNG bytes.

    Frames (H, W, 3) of a video stay arrays.
    """
    row: dict[str, Any] = {}
    for key, name in feature_names(spec).items():
        value = step.obs[key]
        row[name] = png(value) if features[name].dtype == "image" else value
    requested = step.requested_action
    row["action"] = np.asarray(step.action, np.float32)
    row["has_requested_action"] = requested is not None
    row["requested_action"] = (
        np.full(spec.action.size, np.nan, np.float32)
        if requested is None
        else np.asarray(requested, np.float32)
    )
    row |= {name: getattr(step, name) for name in NUMBERS}
    row["stamp_ns"] = step.stamp_ns
    return row


def png(image: np.ndarray) -> bytes:
    """Pack an image (H, W, C) of 8 or 16 bits per number as PNG, without loss."""
    out = io.BytesIO()
    flat = image[..., 0] if image.shape[-1] == 1 else image
    Image.fromarray(np.ascontiguousarray(flat)).save(out, "PNG", compress_level=_PNG_LEVEL)
    return out.getvalue()


def _image(image: ImageSpec, *, video: bool) -> Feature:
    names = ("height", "width", "channels")
    if image.dtype == np.uint16:  # millimetres
        return Feature("image", image.shape, names, {"is_depth_map": True, "depth_unit": "mm"})
    as_video = video and image.channels == 3
    return Feature("video" if as_video else "image", image.shape, names)


def _fit(names: tuple[str, ...], size: int) -> tuple[str, ...] | None:
    return names if len(names) == size else None

"""Makes the golden rollout of a policy with torch; every robot replays it before it acts.

The observations are smooth and drift, like a camera's; resets come at odd times with a carry that
is not zero; the action sent is not always the action asked for.  ``wm_core.contract.golden``
defines the archive and replays it.
"""

from __future__ import annotations

import io

import numpy as np
import torch

from wm_core.contract.image import to_network
from wm_core.contract.spec import ImageSpec, Obs, Spec
from wm_core.exporting.policy_module import PolicyStep

_SEED = 20_240_607  #: every rollout shows the same scenes, so that versions can be compared
_RESET_EVERY = 17
_GRID = 5  #: patches of colour along a side
_SHADE = 15  #: levels between two shades, few enough for the archive to be small


def make_golden(step: PolicyStep, steps: int) -> bytes:
    """Archive ``steps`` steps of ``step``, with one camera frame per image."""
    spec = step.spec
    rng = np.random.default_rng(_SEED)
    text = spec.model_dump_json().encode()
    arrays: dict[str, np.ndarray] = {"spec": np.frombuffer(text, np.uint8)}
    for key, image in spec.images.items():
        shown = frame(image, rng)
        arrays[f"frame/{key}"], arrays[f"seen/{key}"] = shown, to_network(shown, image)
    inputs = _inputs(step, steps, rng)
    arrays |= {f"in/{name}": value for name, value in inputs.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **(arrays | _rollout(step, inputs)))
    return buffer.getvalue()


def scenes(spec: Spec, steps: int, rng: np.random.Generator) -> Obs:
    """Draw a smooth random sequence: images (T, H, W, C), vectors (T, n) float32."""
    obs: Obs = {}
    for key, image in spec.images.items():
        grid = rng.uniform(0, 255, (_GRID, _GRID, image.channels))
        shown = np.empty((steps, *image.shape), image.dtype)
        for t in range(steps):
            grid = np.clip(grid + rng.normal(0, 6, grid.shape), 0, 255)
            shown[t] = image.scene(_enlarge(grid, image.height, image.width))
        obs[key] = shown
    for key, vector in spec.vectors.items():
        obs[key] = rng.normal(0, 0.3, (steps, vector.size)).cumsum(0).astype(np.float32)
    return obs


def _inputs(step: PolicyStep, steps: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """(T, ...) every input but the carry, by name."""
    size, shapes = step.spec.action.size, {info.name: info.shape for info in step.inputs()}
    sent = np.clip(rng.normal(0, 0.2, (steps, size)).cumsum(0), -1, 1).astype(np.float32)
    if step.spec.action.discrete:
        sent = np.stack([step.spec.action.random(rng) for _ in range(steps)])
    draws = {name: rng.random((steps, *shapes[name][1:]), np.float32) for name in step.noise}
    return {
        **scenes(step.spec, steps, rng),
        "prev_action": sent,
        "is_first": np.arange(steps) % _RESET_EVERY == 0,
        **draws,
    }


@torch.inference_mode()
def _rollout(step: PolicyStep, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """(T, ...) outputs of torch, and how near each draw was to a tie."""
    shapes = {info.name: info.shape for info in step.inputs()}
    names = [info.name for info in step.outputs()]
    feed = {name: torch.from_numpy(value) for name, value in inputs.items()}
    carry = {pair.input: torch.zeros(shapes[pair.input]) for pair in step.carry}
    rows: dict[str, list[np.ndarray]] = {}
    for t in range(len(inputs["is_first"])):
        now = {name: value[t : t + 1] for name, value in feed.items()} | carry
        result = step.step(*(now[name] for name in shapes))
        out = dict(zip(names, result.outputs, strict=True))
        carry = {pair.input: out[pair.output] for pair in step.carry}
        row = {f"out/{name}": value for name, value in out.items()}
        row |= {f"gap/{name}": gap for name, gap in result.gaps.items()}
        row |= {f"scale/{name}": scale for name, scale in result.scales.items()}
        for name, value in row.items():
            rows.setdefault(name, []).append(value[0].numpy())
    return {name: np.stack(values) for name, values in rows.items()}


def frame(image: ImageSpec, rng: np.random.Generator) -> np.ndarray:
    """Draw a (H, W, C) camera frame, wider than the network's image and at no whole ratio."""
    height, width = image.height * 5 // 2, image.width * 10 // 3
    smooth = _enlarge(rng.uniform(0, 255, (_GRID, _GRID, image.channels)), height, width)
    noise = rng.integers(-20, 21, smooth.shape)
    return image.scene(np.clip(smooth.astype(np.int64) + noise, 0, 255).astype(np.uint8))


def _enlarge(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width, C) uint8, ``grid`` (G, G, C) spread out linearly."""
    tall, wide = _between(grid.shape[0], height), _between(grid.shape[1], width)
    shown = np.einsum("hg,gkc,wk->hwc", tall, grid / _SHADE, wide, optimize=True)
    return (np.rint(shown) * _SHADE).astype(np.uint8)


def _between(grid: int, size: int) -> np.ndarray:
    """(size, grid) weights of linear interpolation."""
    at = np.linspace(0, grid - 1, size)[:, None]
    return np.clip(1 - np.abs(at - np.arange(grid)), 0, 1)

"""A small network that learns from a few marked frames whether others show success too."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wm_core.contract.spec import Obs, Spec
from wm_core.nn.blocks import drawing_from
from wm_core.world.encoder import ByInput

SIDE_PX = 64  #: larger images are brought to this height and width
SHIFT_PX = 4  #: most pixels that a frame is shifted by while it is learnt from
UPDATES, BATCH, RATE = 300, 32, 1e-3
HELD_OUT = 0.25  #: share of the marks that the network is judged by and does not learn from


class FrameClassifier(nn.Module):
    """Gives the probability that a frame shows success.

    Args:
        spec: of the frames: every image goes through convolutions of its own, vectors beside.
    """

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.images = ByInput({name: _convolutions(i.channels) for name, i in spec.images.items()})
        self.vectors = sorted(spec.vectors)
        numbers = sum(spec.vectors[name].size for name in self.vectors)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.zeros(numbers))
        self.register_buffer("std", torch.ones(numbers))
        inputs = numbers + 32 * 16 * len(self.images)
        self.head = nn.Sequential(nn.Linear(inputs, 64), nn.SiLU(), nn.Linear(64, 1))

    def forward(self, frames: Mapping[str, Tensor]) -> Tensor:
        """(N,) logits of ``frames``: images (N, C, H, W) from -0.5 to 0.5, vectors (N, n)."""
        parts = [layers(frames[name]).flatten(1) for name, layers in self.images.items()]
        if self.vectors:
            numbers = torch.cat([frames[name] for name in self.vectors], 1)
            parts.append((numbers - self.mean) / self.std)
        return self.head(torch.cat(parts, 1)).squeeze(1)

    @torch.no_grad()
    def probability(self, obs: Obs) -> np.ndarray:
        """(N,) float64 from 0 to 1 for images (N, H, W, C) and vectors (N, n) of N steps."""
        return torch.sigmoid(self(as_frames(obs))).double().numpy()

    @property
    def sha256(self) -> str:
        """Give the hash (64 hexadecimal digits) of its weights."""
        digest = hashlib.sha256()
        for name, value in sorted(self.state_dict().items()):
            digest.update(name.encode() + value.numpy().tobytes())
        return digest.hexdigest()


def _convolutions(channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in ((channels, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(4))


def as_frames(obs: Obs) -> dict[str, Tensor]:
    """Turn images (N, H, W, C) of whole numbers and vectors (N, n) into what the network reads."""
    frames = {}
    for name, values in obs.items():
        if values.dtype.kind == "f":
            vectors = torch.from_numpy(np.asarray(values, np.float32))
            frames[name] = vectors.sign() * vectors.abs().log1p()
            continue
        image = torch.from_numpy(np.asarray(values, np.float32) / np.iinfo(values.dtype).max)
        image = image.movedim(-1, 1) - 0.5
        if max(image.shape[-2:]) > SIDE_PX:
            image = F.interpolate(image, (SIDE_PX, SIDE_PX), mode="area")
        frames[name] = image
    return frames


@dataclass(frozen=True)
class ClassifierReport:
    """Says how well a classifier does on marked frames that it has not learnt from."""

    right_yes: int
    yes: int  #: held-out frames that are marked as success
    right_no: int
    no: int
    whole_episodes: bool  #: whether the episodes of those frames were held out as a whole
    learnt_from: int  #: frames

    @property
    def accuracy(self) -> float:
        """Mean of the shares of both kinds that it told right: 0.5 is chance."""
        return (self.right_yes / self.yes + self.right_no / self.no) / 2

    def sentence(self) -> str:
        """Say it in one line."""
        how = "of other episodes" if self.whole_episodes else "of the same episodes"
        return (
            f"the classifier learnt from {self.learnt_from} marked frames and told "
            f"{self.right_yes} of {self.yes} with and {self.right_no} of {self.no} without "
            f"success right, {how}, which it had not seen (accuracy {self.accuracy:.2f}; 0.50 is "
            "chance)"
        )


def held_out(
    episodes: Sequence[str], success: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, bool]:
    """Choose the marks to judge by: of whole episodes, where both kinds are left on both sides.

    Args:
        episodes: of each mark.
        success: (N,) bool.
        rng: of the choice.

    Returns:
        (N,) bool, and whether they are whole episodes.
    """
    names, best = np.array(episodes), None
    for _ in range(20):
        chosen = np.zeros(len(names), bool)
        for name in rng.permutation(np.unique(names)):
            if chosen.sum() >= HELD_OUT * len(names):
                break
            chosen |= names == name
        both = all(len(np.unique(success[part])) == 2 for part in (chosen, ~chosen))
        if both and chosen.mean() <= 0.5 and (best is None or chosen.sum() < best.sum()):
            best = chosen
    if best is not None:
        return best, True
    chosen = np.zeros(len(names), bool)
    for kind in (True, False):
        rows = rng.permutation(np.flatnonzero(success == kind))
        chosen[rows[: max(1, round(HELD_OUT * len(rows)))]] = True
    return chosen, False


def learn_frames(
    spec: Spec, obs: Obs, success: np.ndarray, episodes: Sequence[str], *, seed: int = 0
) -> tuple[FrameClassifier, ClassifierReport]:
    """Learn from marked frames, and judge by those that were held out.

    Args:
        spec: of the frames.
        obs: images (N, H, W, C) and vectors (N, n) of the marked frames.
        success: (N,) bool, at least two of each kind.
        episodes: of each mark.
        seed: of weights, draws and what is held out.
    """
    chosen, whole = held_out(episodes, success, np.random.default_rng(seed))
    generator = torch.Generator().manual_seed(seed)
    with drawing_from(generator):
        network = FrameClassifier(spec)
    frames, target = as_frames(obs), torch.from_numpy(success).float()
    learnt = torch.from_numpy(np.flatnonzero(~chosen))
    if network.vectors:
        numbers = torch.cat([frames[name] for name in network.vectors], 1)[learnt]
        network.mean.copy_(numbers.mean(0))
        network.std.copy_(numbers.std(0).clamp_min(1e-3))
    _learn(network, {k: v[learnt] for k, v in frames.items()}, target[learnt], generator)
    with torch.no_grad():
        held = torch.from_numpy(np.flatnonzero(chosen))
        told = (network({k: v[held] for k, v in frames.items()}) > 0).numpy()
    truth = success[chosen]
    return network, ClassifierReport(
        right_yes=int((told & truth).sum()), yes=int(truth.sum()),
        right_no=int((~told & ~truth).sum()), no=int((~truth).sum()),
        whole_episodes=whole, learnt_from=len(learnt),
    )  # fmt: skip


def _learn(
    network: FrameClassifier, frames: Mapping[str, Tensor], target: Tensor, rng: torch.Generator
) -> None:
    """Take ``UPDATES`` steps, each from as many frames (N, ...) of one kind as of the other."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=1e-2)
    kinds = [torch.nonzero(target == kind).squeeze(1) for kind in (1.0, 0.0)]
    for _ in range(UPDATES):
        picks = [torch.randint(len(k), (BATCH // 2,), generator=rng) for k in kinds]
        rows = torch.cat([kind[pick] for kind, pick in zip(kinds, picks, strict=True)])
        batch = {k: _varied(v[rows], rng) for k, v in frames.items()}
        loss = F.binary_cross_entropy_with_logits(network(batch), target[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _varied(values: Tensor, rng: torch.Generator) -> Tensor:
    """Shift images (N, C, H, W) by some pixels and change their brightness; (N, n) stays."""
    if values.ndim == 2:
        return values
    shift = min(SHIFT_PX, min(values.shape[-2:]) // 16)  # where things are may decide
    padded = F.pad(values, [shift] * 4, mode="replicate")
    top, left = torch.randint(2 * shift + 1, (2,), generator=rng).tolist()
    moved = padded[..., top : top + values.shape[-2], left : left + values.shape[-1]]
    return moved + 0.2 * (torch.rand(len(values), 1, 1, 1, generator=rng) - 0.5)

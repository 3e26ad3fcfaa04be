"""Your own backbone: a gated linear recurrence, added from outside without a change in wm_core.

A backbone reads what was before each step and answers ``deter``. This one is the simplest of the
linear recurrences (GILR, arXiv:1709.04057; RG-LRU, arXiv:2402.19427):

    a_t = sigmoid(W_a x_t)          how much of the past stays
    h_t = a_t h_{t-1} + (1 - a_t) W_x x_t

The gate does not read h, so all times of a sequence follow from one parallel scan, while acting
takes one step at a time. ``wm_core`` asks for both, and the policy's file carries h.

    python examples/own_backbone.py                # trains for a minute, exports, proves the file

A package that names ``PART`` in its entry points, group ``wm_core.backbone``, offers it to
``wm train --world.backbone gated --world.own.gated.layers 3`` too.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

import wm_core as wm
from wm_core.nn.blocks import forget
from wm_core.parts import Part
from wm_core.world.part_settings import BackboneConfig
from wm_core.world.settings import BACKBONES

Memory = tuple[Tensor, ...]


class GatedConfig(BackboneConfig):
    """Sizes of the gated linear recurrence."""

    deter: int = Field(128, gt=0, description="Size D of deter and of every layer, at least 1.")
    layers: int = Field(2, gt=0, description="Number of recurrent layers, at least 1.")

    @property
    def deter_size(self) -> int:
        return self.deter


class GatedLayer(nn.Module):
    """One layer: a gated recurrence, and an MLP beside a skip connection."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.gate, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.SiLU())

    def forward(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and states (B, T, D) of a sequence.

        Args:
            x: (B, T, D) inputs.
            keep: (B, T, 1), 0 where the past is forgotten and 1 elsewhere.
            state: (B, D) of the step before the first.
        """
        decay, new = self._gated(x, keep)
        states = scan(decay, new, state)
        return x + self.mlp(x + states), states

    def step(self, x: Tensor, keep: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Output and state (N, D) of one step, of x (N, D), keep (N, 1) and state (N, D)."""
        decay, new = self._gated(x, keep)
        state = decay * state + new
        return x + self.mlp(x + state), state

    def _gated(self, x: Tensor, keep: Tensor) -> tuple[Tensor, Tensor]:
        x = self.norm(x)
        gate = self.gate(x).sigmoid()
        return gate * keep, (1.0 - gate) * self.value(x)


def scan(decay: Tensor, x: Tensor, state: Tensor) -> Tensor:
    """(B, T, D) h_t = decay_t h_{t-1} + x_t for all t from ``state`` (B, D), in log2(T) passes."""
    x = torch.cat([(x[:, :1] + decay[:, :1] * state.unsqueeze(1)), x[:, 1:]], 1)
    reach = 1
    while reach < x.shape[1]:
        x = torch.cat([x[:, :reach], x[:, reach:] + decay[:, reach:] * x[:, :-reach]], 1)
        decay = torch.cat([decay[:, :reach], decay[:, reach:] * decay[:, :-reach]], 1)
        reach *= 2
    return x


class GatedRecurrence(nn.Module):
    """What ``wm_core.world.base.Backbone`` asks for; its memory is the states of the layers."""

    names: tuple[str, ...] = ("states",)
    remembers = True

    def __init__(self, config: GatedConfig) -> None:
        super().__init__()
        self.width = config.deter
        self.layers = nn.ModuleList(GatedLayer(config.deter) for _ in range(config.layers))

    def initial(self, n: int) -> Memory:
        return (self.layers[0].gate.weight.new_zeros(n, len(self.layers), self.width),)

    def forward(
        self, x: Tensor, is_first: Tensor, memory: Memory, generator: torch.Generator | None
    ) -> tuple[Tensor, Any]:
        (states,), x = memory or self.initial(len(x)), x.squeeze(2)
        states = forget(states, is_first[:, 0])
        keep, history = (~is_first).float().unsqueeze(-1), []
        for i, layer in enumerate(self.layers):
            x, after = layer(x, keep, states[:, i])
            history.append(after)
        return x, (torch.stack(history, 2),)

    def step(self, x: Tensor, is_first: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
        x, keep, states = x.squeeze(1), (~is_first).float().unsqueeze(-1), []
        for i, layer in enumerate(self.layers):
            x, state = layer.step(x, keep, memory[0][:, i])
            states.append(state)
        return x, (torch.stack(states, 1),)

    def at(self, history: Any, times: Tensor) -> Memory:
        return (history[0][:, times].flatten(0, 1),)


PART = Part(GatedConfig, GatedRecurrence)


def episodes() -> wm.Episodes:
    """Thirty episodes in which actions move a bright column, which is best kept in the middle."""
    rng = np.random.default_rng(0)
    N, T, side = 30, 40, 32
    action = rng.uniform(-1, 1, (N, T, 1)).astype(np.float32)
    image = np.zeros((N, T, side, side, 3), np.uint8)
    reward, x = np.zeros((N, T), np.float32), rng.uniform(0, 1, N)
    for t in range(T):
        for n, column in enumerate((x * (side - 6)).astype(int)):
            image[n, t, :, column : column + 6] = 255
        reward[:, t] = 1 - 2 * np.abs(x - 0.5)
        x = np.clip(x + 0.2 * action[:, t, 0], 0, 1)
    return wm.Episodes.from_arrays(image=image, action=action, reward=reward)


def main(updates: int = 300) -> None:
    """Train an agent with the new backbone, and prove its exported policy."""
    BACKBONES.register("gated", PART.settings, PART.make)
    data = episodes()
    agent = wm.Agent.create(
        "s4wm", data.spec, world={"backbone": "gated", "own": {"gated": {"layers": 2}}}
    )
    losses = []
    for batch in data.windows(batch=8, length=16, updates=updates):
        losses.append(agent.update(batch)["recon_loss/image"])
        if agent.updates % 50 == 0:
            print(f"update {agent.updates}: image loss {np.mean(losses[-10:]):.1f}")
    first, last = np.mean(losses[:5]), np.mean(losses[-5:])
    print(f"image loss fell from {first:.1f} to {last:.1f}")
    if last >= first:
        sys.exit("the loss did not fall")
    with tempfile.TemporaryDirectory() as folder:
        # exporting plays a rollout with torch and refuses the file if ONNX answers otherwise
        policy = agent.export(folder)
    print("carry in the policy file:", ", ".join(pair.input for pair in policy.card.carry))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))

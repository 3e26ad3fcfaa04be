"""Optimises an agent with one LaProp over everything, or an Adam for each of its parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from wm_core.agents.settings import OptimConfig
from wm_core.nn import joined
from wm_core.nn.optim import Adam, LaProp, ParameterGroup
from wm_core.nn.ssm import recurrence_parameters


class Optimizers:
    """Turn gradients into new weights.

    Args:
        groups: every trained weight, by the part of the agent that it belongs to:
            ``representation`` and ``dynamics`` of the world model, and those of the behaviour.
        world: the world model, for its state-space layers, which are not decayed.
        config: kind and rates.

    Source: LaProp as in DreamerV3, arXiv:2301.04104; Adam with a rate for each part as in
    Dreamer, arXiv:1912.01603, and DreamerV2, arXiv:2010.02193.
    """

    def __init__(
        self, groups: Mapping[str, ParameterGroup], world: nn.Module, config: OptimConfig
    ) -> None:
        self.config, self.updates = config, 0
        self.gradient = torch.zeros(())  #: norm of the newest gradient, before clipping
        rows = self._by_rate(groups)
        if config.kind == "laprop":
            names = {"warmup", "decay_after", "agc", "agc_floor", "beta1", "beta2", "eps"}
            by_rate = [{"params": row.parameters, "lr": row.lr} for row in rows]
            settings = config.model_dump(include=names)
            self._all: list[LaProp] | list[Adam] = [LaProp(by_rate, lr=config.lr, **settings)]
        else:
            self._all = [self._adam(row, world) for row in rows]

    def _by_rate(self, groups: Mapping[str, ParameterGroup]) -> list[ParameterGroup]:
        """The weights of each optimiser with their rate and clip; parts of one rate are one."""
        config, shared = self.config, ["representation", "dynamics"]
        rates = {name: getattr(config, f"{name}_lr") for name in ("dynamics", "actor", "critic")}
        if config.dynamics_lr:
            shared.remove("dynamics")
        rows = []
        for name, group in groups.items():
            rate = group.lr or rates.get(name)
            if config.kind == "laprop" and rate is None and name not in shared:
                shared.append(name)
            elif name not in shared:
                clip = group.clip or (config.clip if name == "dynamics" else config.behavior_clip)
                rows.append(ParameterGroup(group.parameters, rate or config.lr, clip))
        together = [p for name in shared if name in groups for p in groups[name].parameters]
        rows.insert(0, ParameterGroup(together, config.lr, config.clip))
        return [row for row in rows if row.parameters]

    def _adam(self, row: ParameterGroup, world: nn.Module) -> Adam:
        config, undecayed = self.config, {id(p) for p in recurrence_parameters(world)}
        plain = [p for p in row.parameters if id(p) in undecayed]
        rest = [p for p in row.parameters if id(p) not in undecayed]
        groups: list[dict[str, Any]] = [{"params": rest}, {"params": plain, "weight_decay": 0.0}]
        return Adam(
            [group for group in groups if group["params"]],
            lr=row.lr or config.lr,
            warmup=config.warmup,
            decay_after=config.decay_after,
            clip=row.clip or config.clip,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.decay,
            decay_by_rate=config.decay_by_rate,
        )

    def step(self, loss: Tensor) -> None:
        """Step down the gradient of ``loss`` (); weights that it does not reach stay.

        Whoever calls it counts it in ``updates``.
        """
        for optimizer in self._all:
            optimizer.zero_grad(set_to_none=True)
        loss.backward()
        joined.average_gradients(self._parameters())
        for optimizer in self._all:
            optimizer.step()
        self.gradient = torch.stack([o.norm for o in self._all]).square().sum().sqrt()

    def _parameters(self) -> Iterator[Tensor]:
        for optimizer in self._all:
            for group in optimizer.param_groups:
                yield from group["params"]

    def state_dict(self) -> dict[str, Any]:
        """The state for a checkpoint: tensors and plain containers."""
        states = [optimizer.state_dict() for optimizer in self._all]
        held = {"laprop": states[0]} if self.config.kind == "laprop" else {"adams": states}
        return {"updates": self.updates} | held

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.updates = int(state["updates"])
        states = [state["laprop"]] if self.config.kind == "laprop" else state["adams"]
        for optimizer, held in zip(self._all, states, strict=True):
            optimizer.load_state_dict(held)

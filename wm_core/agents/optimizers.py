"""The optimisers of an agent: one LaProp over everything, or an Adam for each of its parts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from wm_core.agents.settings import OptimConfig
from wm_core.nn.optim import LaProp
from wm_core.nn.ssm import recurrence_parameters

Parts = dict[str, list[nn.Parameter]]

#: of the world model, what learns to see and to show: everything else is dynamics
_REPRESENTATION = ("encoder.", "decoder.", "projection.", "dynamics.posterior.")


def parts_of(world: nn.Module, actor: nn.Module, critic: nn.Module | None) -> Parts:
    """Every trained weight, by the part of the agent that it belongs to."""
    parts: Parts = {"representation": [], "dynamics": []}
    for name, weight in world.named_parameters():
        kind = "representation" if name.startswith(_REPRESENTATION) else "dynamics"
        parts[kind].append(weight)
    parts["actor"] = [p for p in actor.parameters() if p.requires_grad]
    parts["critic"] = [] if critic is None else [p for p in critic.parameters() if p.requires_grad]
    return {name: weights for name, weights in parts.items() if weights}


class Optimizers:
    """What turns gradients into new weights.

    Args:
        parts: as ``parts_of`` has them.
        world: for its state-space layers, which are not decayed.
        config: kind and rates.

    Source: LaProp as in DreamerV3, arXiv:2301.04104; Adam with a rate for each part as in
    Dreamer, arXiv:1912.01603, and DreamerV2, arXiv:2010.02193.
    """

    def __init__(self, parts: Parts, world: nn.Module, config: OptimConfig) -> None:
        self.config, self.updates = config, 0
        self.gradient = torch.zeros(())  #: norm of the last one, before clipping
        if config.kind == "laprop":
            names = {"warmup", "agc", "agc_floor", "beta1", "beta2", "eps"}
            groups = [{"params": weights, "lr": rate} for weights, rate, _ in self._by_rate(parts)]
            self._laprop = LaProp(groups, lr=config.lr, **config.model_dump(include=names))
            return
        self._adams = [
            (weights, clip, self._adam(weights, rate, world))
            for weights, rate, clip in self._by_rate(parts)
        ]

    def _by_rate(self, parts: Parts) -> list[tuple[list[nn.Parameter], float, float]]:
        """(weights, rate, largest gradient) of each optimiser; parts of one rate are one."""
        config = self.config
        model = ["representation"] if config.dynamics_lr else ["representation", "dynamics"]
        rows = [(model, config.lr, config.clip)]
        if config.dynamics_lr:
            rows.append((["dynamics"], config.dynamics_lr, config.clip))
        for name, rate in (("actor", config.actor_lr), ("critic", config.critic_lr)):
            if config.kind == "laprop" and rate is None:
                model.append(name)
            else:
                rows.append(([name], rate or config.lr, config.behavior_clip))
        return [
            (weights, rate, clip)
            for names, rate, clip in rows
            if (weights := [p for name in names for p in parts.get(name, ())])
        ]

    def _adam(
        self, weights: list[nn.Parameter], rate: float, world: nn.Module
    ) -> torch.optim.Optimizer:
        config = self.config
        undecayed = {id(p) for p in recurrence_parameters(world)}
        plain = {"params": [p for p in weights if id(p) in undecayed], "weight_decay": 0.0}
        rest = {"params": [p for p in weights if id(p) not in undecayed]}
        return torch.optim.AdamW(
            [group for group in (rest, plain) if group["params"]],
            lr=rate,
            betas=(config.beta1, config.beta2),
            eps=config.eps,
            weight_decay=config.decay,
            foreach=True,
        )

    def step(self, loss: Tensor) -> None:
        """One update down the gradient of ``loss`` (); weights that it does not reach stay."""
        self.updates += 1
        if self.config.kind == "laprop":
            self._laprop.zero_grad(set_to_none=True)
            loss.backward()
            self._laprop.step()
            self.gradient = self._laprop.norm
            return
        for _, _, adam in self._adams:
            adam.zero_grad(set_to_none=True)
        loss.backward()
        norms, warm = [], min(1.0, self.updates / max(1, self.config.warmup))
        for weights, clip, adam in self._adams:
            norms.append(nn.utils.clip_grad_norm_(weights, clip, foreach=True))
            rates = [group["lr"] for group in adam.param_groups]
            for group in adam.param_groups:
                group["lr"] *= warm
            adam.step()
            for group, rate in zip(adam.param_groups, rates, strict=True):
                group["lr"] = rate
        self.gradient = torch.stack(norms).square().sum().sqrt()

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint: tensors and plain containers."""
        if self.config.kind == "laprop":
            return {"updates": self.updates, "laprop": self._laprop.state_dict()}
        return {
            "updates": self.updates, "adams": [adam.state_dict() for _, _, adam in self._adams]
        }  # fmt: skip

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.updates = int(state["updates"])
        if self.config.kind == "laprop":
            self._laprop.load_state_dict(state["laprop"])
            return
        for (_, _, adam), held in zip(self._adams, state["adams"], strict=True):
            adam.load_state_dict(held)

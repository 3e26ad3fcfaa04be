"""Exports versions of a policy: traces the graph once, then exchanges weights and proof."""

from __future__ import annotations

import hashlib
import importlib.metadata
from datetime import datetime, timezone
from typing import NamedTuple

import torch
from torch import Tensor

from wm_core.agents.agent import AgentCore
from wm_core.config import Config
from wm_core.contract.card import PolicyCard, TensorInfo
from wm_core.contract.files import json_text
from wm_core.contract.spec import Spec
from wm_core.exporting.golden import make_golden
from wm_core.exporting.policy_module import PolicyStep
from wm_core.exporting.to_onnx import OPSET, Template, trace

_TOOLS = ("torch", "onnx", "onnxscript", "numpy")
_OLD_PERIODS = 2.0  #: an observation older than this many periods calls for the safe action


class Export(NamedTuple):
    """One version of a policy, ready to be published."""

    onnx: bytes
    golden: bytes
    weights_sha256: str


def _changed(config: Config) -> str:
    """Write the settings of the environment that are not the defaults as JSON; "" for none."""
    return json_text(config.env.changed, sort_keys=True) if config.env.changed else ""


class PolicyExporter:
    """Writes versions of one agent's policy.

    The first ``export`` traces the graph, which takes seconds; the others exchange its weights.
    Buffers are constants of the graph: where one has changed, it is traced again.  Call it between
    updates: it reads the agent's weights as they are.

    Attributes:
        step: the network of the last export.

    Args:
        agent: on any device; never changed.
        spec: of the observations and actions it is trained on.
        config: for the card.
        origin: fields of the card: ``run_id``, ``commit`` and ``task``, where they are known.
    """

    def __init__(self, agent: AgentCore, spec: Spec, config: Config, **origin: str) -> None:
        self._agent, self._spec, self._config, self._origin = agent, spec, config, origin
        self._tools = {name: importlib.metadata.version(name) for name in _TOOLS}
        self.step = PolicyStep(agent, spec)
        self._template: Template | None = None
        self._split: tuple[TensorInfo, ...] = ()
        self._constants: dict[str, Tensor] = {}  # the buffers that the template was traced with

    def export(
        self, version: int, learner_updates: int, agent_steps: int, golden_steps: int = 64
    ) -> Export:
        """Export the agent's present policy.

        Args:
            version: of the policy within its run; 0 is untrained.
            learner_updates: behind it.
            agent_steps: of experience behind it.
            golden_steps: length of the rollout that proves it.
        """
        self.step.refresh(self._agent)
        if self._template is None or self._buffers_changed():
            self._constants = {name: b.clone() for name, b in self.step.named_buffers()}
            inputs, outputs = self.step.inputs(), self.step.outputs()
            self._template = trace(self.step, inputs, outputs, tuple(self._spec.inputs))
            self._split = self._template.split()
        weights = {n: p.detach().numpy() for n, p in self.step.named_parameters()}
        weights_hash = self._template.substitute(weights)
        golden = make_golden(self.step, golden_steps)
        card = PolicyCard(
            preset=self._config.preset,
            size=self._config.size,
            spec=self._spec,
            inputs=self.step.inputs(),
            outputs=self.step.outputs(),
            carry=self.step.carry,
            noise=self.step.noise,
            split=self._split,
            max_obs_age_s=_OLD_PERIODS * self._spec.period_s,
            version=version,
            learner_updates=learner_updates,
            agent_steps=agent_steps,
            weights_sha256=weights_hash,
            golden_sha256=hashlib.sha256(golden).hexdigest(),
            opset=OPSET,
            exporter=self._tools,
            task_settings=_changed(self._config),
            created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            **self._origin,
        )
        return Export(self._template.serialize(card.model_dump_json()), golden, weights_hash)

    def _buffers_changed(self) -> bool:
        return any(
            not torch.equal(buffer, self._constants[name])
            for name, buffer in self.step.named_buffers()
        )

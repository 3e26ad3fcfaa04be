"""One step of each layer as a graph: what the runtime computes is what torch computes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from wm_core.contract.card import TensorInfo
from wm_core.exporting.to_onnx import trace
from wm_core.nn.blocks import initialize
from wm_core.nn.mdn import MixtureHead
from wm_core.nn.ssm import StateSpace
from wm_core.nn.transformer import Cache, Transformer

pytestmark = pytest.mark.long

WIDTH, WINDOW = 8, 4
FORBIDDEN = {"Loop", "If", "Scan", "RandomUniform", "RandomNormal", "Multinomial", "Einsum"}


class TransformerStep(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.net = Transformer(
            width=WIDTH, layers=2, heads=2, head=4, hidden=16, window=WINDOW, **options
        )

    def forward(self, x, is_first, keys, values, valid, count):
        out, cache = self.net.step(x, is_first[:, 0], Cache(keys, values, valid, count))
        return out, *cache

    def carry(self):
        return {
            "keys": (1, 2, 2, WINDOW, 4), "values": (1, 2, 2, WINDOW, 4),
            "valid": (1, WINDOW), "count": (1,),
        }  # fmt: skip


class TokensStep(TransformerStep):
    """Three tokens at each step, the first of which may begin an episode."""

    def forward(self, x, is_first, keys, values, valid, count):
        tokens = torch.stack([x, x.flip(1), -x], 1)
        first = torch.cat([is_first, torch.zeros_like(is_first).expand(1, 2)], 1)
        out, history = self.net(tokens, first, Cache(keys, values, valid, count))
        return out.flatten(1), *history.last()


class StateSpaceStep(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = StateSpace(width=WIDTH, state=8, layers=2, blocks=2)

    def forward(self, x, is_first, carry):
        return self.net.step(x, is_first[:, 0], carry)

    def carry(self):
        return {"carry": (1, 2, 2, 8)}


class MixtureStep(nn.Module):
    """Predicts the next draw from the last; the noise comes from ``x``."""

    def __init__(self):
        super().__init__()
        self.head = MixtureHead(WIDTH // 2, WIDTH // 2)

    def forward(self, x, is_first, drawn):
        uniform = torch.sigmoid(x).reshape(1, WIDTH // 2, 2)
        mixture = self.head(torch.where(is_first, torch.zeros_like(drawn), drawn))
        return mixture.log_prob(drawn), mixture.sample(uniform, 1.15)

    def carry(self):
        return {"drawn": (1, WIDTH // 2)}


MODULES = {
    **{p: (lambda p=p: TransformerStep(positions=p)) for p in ("none", "sinusoid", "age", "shaw")},
    "xl": lambda: TransformerStep(positions="xl", order="post", activation="silu"),
    "tokens": lambda: TokensStep(positions="xl", order="post"),
    "readout": lambda: TransformerStep(positions="age", readout="all"),
    "ssm": StateSpaceStep,
    "mdn": MixtureStep,
}


def shaken(module):
    generator = torch.Generator().manual_seed(2)
    initialize(module, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return module.eval()


@pytest.mark.parametrize("name", MODULES)
def test_the_runtime_follows_torch_over_steps_and_resets_with_exchanged_weights(name):
    module = shaken(MODULES[name]())
    carry = module.carry()
    inputs = [
        TensorInfo(name="x", dtype="float32", shape=(1, WIDTH)),
        TensorInfo(name="is_first", dtype="bool", shape=(1, 1)),
        *(TensorInfo(name=k, dtype="float32", shape=s) for k, s in carry.items()),
    ]
    state = {k: torch.zeros(s) for k, s in carry.items()}
    with torch.no_grad():
        out = module(torch.zeros(1, WIDTH), torch.zeros(1, 1, dtype=torch.bool), *state.values())[
            0
        ]
    outputs = [
        TensorInfo(name="out", dtype="float32", shape=tuple(out.shape)),
        *(TensorInfo(name=f"next_{k}", dtype="float32", shape=s) for k, s in carry.items()),
    ]
    template = trace(module, inputs, outputs)  # refuses parameters that were folded or renamed
    template.substitute({n: p.detach().numpy() for n, p in module.named_parameters()})
    assert FORBIDDEN.isdisjoint(node.op_type for node in template._model.graph.node)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        template.serialize("{}"), options, providers=["CPUExecutionProvider"]
    )
    rng, run = np.random.default_rng(0), {k: v.numpy() for k, v in state.items()}
    for t in range(4 * WINDOW):
        x = rng.standard_normal((1, WIDTH)).astype(np.float32)
        first = np.array([[t in (0, 7, 8)]])
        got = session.run(None, {"x": x, "is_first": first, **run})
        with torch.no_grad():
            want = module(torch.from_numpy(x), torch.from_numpy(first), *state.values())
        for a, b in zip(got, want, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=1e-5, atol=1e-5)
        state = dict(zip(carry, want[1:], strict=True))
        free = name != "mdn"  # draws wander: likelihoods far out magnify the last digit
        run = dict(zip(carry, got[1:] if free else [s.numpy() for s in want[1:]], strict=True))

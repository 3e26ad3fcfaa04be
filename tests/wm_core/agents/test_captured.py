"""An update over buffers of its own is the ordinary one, bit for bit; on a GPU it is recorded."""

from __future__ import annotations

import logging

import pytest
import torch

from wm_core.agents.captured import WARM, CapturedUpdate, cuda_graph

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Recorder:
    """Stands for a graph on CPUs: runs the step again, and counts how often one was made."""

    def __init__(self):
        self.made = 0

    def __call__(self, step, generator):
        self.made += 1
        return step


def batches(parts, count):
    """(4, 6) batches, each of other numbers."""
    batch = parts.batch()
    for i in range(count):
        yield batch.map(lambda x, i=i: x.roll(i, 0))


def learn(parts, agent, update, device="cpu", updates=2 * WARM):
    """Metrics of ``updates`` updates, each of another batch, which start where the last ended."""
    generator = torch.Generator(device).manual_seed(0)
    context, metrics = agent.world.dynamics.carry_of(agent.initial(4)), []
    for batch in batches(parts, updates):
        found, posterior = update(batch.map(lambda x: x.to(device)), context, generator)
        metrics.append({name: float(value) for name, value in found.items()})
        last = posterior.detach()
        context = tuple(c[:, -1].clone() for c in agent.world.dynamics.carry_of(last))
    return metrics


def states(agent):
    return {k: v for k, v in agent.state_dict().items() if isinstance(v, torch.Tensor)}


@pytest.mark.parametrize(
    ("preset", "changes", "recordings"),
    [
        ("dreamer_v3", {}, 1),
        ("dreamer_v2", {"behavior": {"critic": {"target_every": 2}}}, 1),
        ("daydreamer", {"optim": {"stages": (WARM + 1, 0)}}, 2),
    ],
)
def test_updates_over_buffers_are_those_without_bit_for_bit(preset, changes, recordings, small):
    parts = small(preset, **changes)
    one, other, recorder = parts.agent(), parts.agent(), Recorder()
    updates = WARM + 2 + (WARM if recordings > 1 else 0)
    plain = learn(parts, one, one.update, updates=updates)
    captured = learn(parts, other, CapturedUpdate(other, recorder), updates=updates)
    assert recorder.made == recordings
    assert captured == plain
    assert other.updates == one.updates == updates
    for name, value in states(one).items():
        assert torch.equal(states(other)[name], value), name


def test_what_cannot_be_recorded_goes_on_as_it_was(small, caplog):
    def refused(step, generator):
        raise RuntimeError("operation not permitted when stream is capturing")

    parts = small("dreamer_v3")
    one, other = parts.agent(), parts.agent()
    with caplog.at_level(logging.WARNING):
        captured = learn(parts, other, CapturedUpdate(other, refused))
    assert captured == learn(parts, one, one.update)
    assert [r.getMessage() for r in caplog.records if "not recorded" in r.getMessage()] != []
    assert len(caplog.records) == 1


@pytest.mark.gpu
@CUDA
def test_a_recorded_update_learns_what_an_ordinary_one_does(small):
    parts = small("dreamer_v3")
    one, other = parts.agent().to("cuda"), parts.agent().to("cuda")
    plain = learn(parts, one, one.update, "cuda")
    update = CapturedUpdate(other, cuda_graph)
    captured = learn(parts, other, update, "cuda")
    assert not update.failed
    for before, after in zip(plain, captured, strict=True):
        assert after == pytest.approx(before, rel=1e-3, abs=1e-4)

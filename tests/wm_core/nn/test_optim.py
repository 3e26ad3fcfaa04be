"""LaProp, adaptive clipping and the return range against numbers worked out by hand."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from wm_core.nn import optim
from wm_core.nn.normalize import PercentileRange
from wm_core.nn.optim import Adam, LaProp, clip_adaptively


def test_clipping_scales_a_gradient_to_its_share_of_the_parameter():
    parameters = [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 0.0]), torch.tensor([10.0])]
    gradients = [torch.tensor([0.0, 15.0]), torch.tensor([3e-3, 4e-3]), torch.tensor([1.0])]
    norm = clip_adaptively(gradients, parameters, ratio=0.3, floor=1e-3)
    # |p| = 5 allows 1.5; |p| = 0 counts as 0.001 and allows 0.0003; 1 is within 3.
    torch.testing.assert_close(gradients[0], torch.tensor([0.0, 1.5]))
    torch.testing.assert_close(gradients[1], torch.tensor([1.8e-4, 2.4e-4]))
    torch.testing.assert_close(gradients[2], torch.tensor([1.0]))
    assert norm.item() == pytest.approx(math.sqrt(226 + 25e-6))


def by_hand(gradients: list[float], *, lr: float, warmup: int) -> float:
    """Where LaProp has moved a parameter that started at 100, in plain arithmetic."""
    value, square, momentum = 100.0, 0.0, 0.0
    for n, gradient in enumerate(gradients, start=1):
        square = 0.999 * square + 0.001 * gradient**2
        unit = gradient / (math.sqrt(square / (1 - 0.999**n)) + 1e-20)
        momentum = 0.9 * momentum + 0.1 * unit
        value -= lr * min(1.0, n / warmup) * momentum / (1 - 0.9**n)
    return value


def test_laprop_follows_its_definition():
    gradients = [2.0, -1.0, 0.5, 4.0, 0.0]
    parameter = nn.Parameter(torch.tensor([100.0], dtype=torch.float64))
    optimizer = LaProp([parameter], lr=0.1, warmup=3)
    for gradient in gradients:
        parameter.grad = torch.tensor([gradient], dtype=torch.float64)
        optimizer.step()
    assert parameter.item() == pytest.approx(by_hand(gradients, lr=0.1, warmup=3), rel=1e-9)


def test_first_step_has_the_length_of_the_learning_rate():
    parameter = nn.Parameter(torch.tensor([1.0, -1.0]))
    optimizer = LaProp([parameter], lr=0.01, warmup=0)
    parameter.grad = torch.tensor([1e-6, -1e-3])
    optimizer.step()
    torch.testing.assert_close(parameter.data, torch.tensor([0.99, -0.99]))


def test_parameters_without_a_gradient_stay():
    moved, still = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = LaProp([moved, still], lr=0.1)
    moved.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(still.data, torch.ones(2))
    assert not torch.equal(moved.data, torch.ones(2))


def test_laprop_in_one_pass_over_memory_is_the_plain_one(monkeypatch):
    """Of several shapes and sizes of gradients, with a part that starts late."""
    generator = torch.Generator().manual_seed(0)
    shapes, places = [(3,), (17, 5), (2, 3, 4, 4), (70, 40), ()], {}
    steps = [[torch.randn(s, generator=generator) for s in shapes] for _ in range(6)]
    first = [torch.randn(s, generator=generator) for s in shapes]
    for way in ("one pass", "plain"):
        if way == "plain":
            monkeypatch.setattr(optim, "_in_one_pass", lambda *tensors: False)
        parameters = [nn.Parameter(p.clone()) for p in first]
        optimizer = LaProp(parameters, lr=0.02, warmup=3)
        for n, gradients in enumerate(steps):
            for at, (p, gradient) in enumerate(zip(parameters, gradients, strict=True)):
                late = at == 1 and n < 3
                # at some sizes gradients are clipped, at others not; some numbers are 0
                p.grad = None if late else gradient.relu() * 10.0 ** (at - 3)
            optimizer.step()
        places[way] = [p.detach() for p in parameters] + [
            optimizer.state[p][k] for p in parameters for k in ("updates", "momentum", "square")
        ]
    for fused, plain in zip(places["one pass"], places["plain"], strict=True):
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-7)
        assert not torch.equal(fused, torch.zeros_like(fused))


def test_one_pass_takes_float32_of_the_cpu_that_lies_in_a_row():
    table = torch.ones(4, 3)
    assert optim._in_one_pass([table], [table])
    assert not optim._in_one_pass([table.double()], [table.double()])
    assert not optim._in_one_pass([table], [torch.ones(3, 4).T])
    assert not optim._in_one_pass([table.to("meta")], [table.to("meta")])


def test_laprop_resumes_bit_for_bit():
    def train(optimizer, parameter, steps):
        for n in steps:
            parameter.grad = torch.tensor([1.0 + n, -0.5 * n])
            optimizer.step()

    straight = nn.Parameter(torch.tensor([1.0, 2.0]))
    first = LaProp([straight], lr=0.1, warmup=4)
    train(first, straight, range(3))
    resumed = nn.Parameter(straight.detach().clone())
    second = LaProp([resumed], lr=0.1, warmup=4)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    train(first, straight, range(3, 6))
    train(second, resumed, range(3, 6))
    assert torch.equal(straight, resumed)


def adam(parameters, **changes):
    settings = {"lr": 0.1, "warmup": 0, "clip": 1.0, "betas": (0.9, 0.999), "eps": 1e-8}
    return Adam(parameters, **{**settings, "weight_decay": 0.0, **changes})


def test_adam_is_torchs_own_behind_a_clip_with_decay():
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(4, 3, generator=generator)
    ours, theirs = nn.Parameter(start.clone()), nn.Parameter(start.clone())
    mine = adam([ours], weight_decay=0.01)
    reference = torch.optim.AdamW([theirs], lr=0.1, eps=1e-8, weight_decay=0.01)
    for _ in range(20):
        gradient = 3.0 * torch.randn(4, 3, generator=generator)
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        mine.step()
        nn.utils.clip_grad_norm_([theirs], 1.0)
        reference.step()
        assert mine.norm.item() == pytest.approx(gradient.norm().item())
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(("by_rate", "kept"), [(True, 1 - 0.1 * 0.01), (False, 1 - 0.01)])
def test_decay_takes_its_share_times_the_rate_or_whole_as_in_dreamer_v2(by_rate, kept):
    parameter = nn.Parameter(torch.tensor([2.0, -4.0]))
    optimizer = adam([parameter], weight_decay=0.01, decay_by_rate=by_rate)
    for _ in range(3):
        parameter.grad = torch.zeros(2)
        optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([2.0, -4.0]) * kept**3)


def test_adam_goes_on_from_the_state_of_torchs_own():
    ours, theirs = (nn.Parameter(torch.tensor([1.0, -2.0])) for _ in range(2))
    reference = torch.optim.AdamW([theirs], lr=0.1, eps=1e-8, weight_decay=0.0)
    for _ in range(3):
        theirs.grad = torch.tensor([0.3, -0.1])
        reference.step()
    with torch.no_grad():
        ours.copy_(theirs)
    mine = adam([ours])
    mine.load_state_dict(copy.deepcopy(reference.state_dict()))
    ours.grad, theirs.grad = torch.tensor([-0.5, 0.2]), torch.tensor([-0.5, 0.2])
    mine.step()
    reference.step()
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("make", "changes"),
    [
        (LaProp, {"lr": 0.5, "warmup": 7, "eps": 1e-3, "beta1": 0.5}),
        (adam, {"lr": 0.5, "warmup": 7, "eps": 1e-3, "betas": (0.5, 0.9)}),
    ],
    ids=["laprop", "adam"],
)
def test_a_resumed_run_goes_on_at_its_own_rates(make, changes):
    parameter, other = (nn.Parameter(torch.ones(2)) for _ in range(2))
    first, resumed = make([parameter], lr=0.1), make([other], **changes)
    parameter.grad = torch.ones(2)
    first.step()
    resumed.load_state_dict(copy.deepcopy(first.state_dict()))
    (group,) = resumed.param_groups
    assert {name: group[name] for name in changes} == changes
    assert group["params"][0] is other
    assert resumed.state[other][resumed.count] == 1


def test_the_norm_of_adam_is_where_its_weights_are_without_a_gradient_too():
    """Learnt on a GPU, it is joined with the norms of other parts."""
    optimizer = adam([nn.Parameter(torch.ones(2, device="meta"))])
    optimizer.step()
    assert optimizer.norm.device.type == "meta"


def unclipped_laprop(parameters, **changes):
    return LaProp(parameters, agc=1e9, **changes)


def unclipped_adam(parameters, **changes):
    return adam(parameters, clip=1e9, **changes)


@pytest.mark.parametrize("make", [unclipped_laprop, unclipped_adam], ids=["laprop", "adam"])
def test_a_parameter_that_starts_late_warms_up_by_itself(make):
    """Under a constant gradient each step has the length of the rate."""
    one = torch.ones(1, dtype=torch.float64)
    early, late = nn.Parameter(one.clone()), nn.Parameter(one.clone())
    optimizer = make([early, late], lr=1.0, warmup=100)
    for step in range(1, 351):
        before = early.item(), late.item()
        early.grad, late.grad = one.clone(), one.clone() if step > 200 else None
        optimizer.step()
        moved = [b - p.item() for b, p in zip(before, (early, late), strict=True)]
        assert moved[0] == pytest.approx(min(1.0, step / 100), rel=1e-3)
        own = max(0, step - 200)
        assert moved[1] == pytest.approx(min(1.0, own / 100), rel=1e-3)


@pytest.mark.parametrize("make", [unclipped_laprop, unclipped_adam], ids=["laprop", "adam"])
def test_rates_fall_with_the_square_root_of_the_updates_when_asked(make):
    """Under a constant gradient each step has the length of the rate."""
    parameter = nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = make([parameter], lr=1.0, warmup=10, decay_after=50)
    for step in range(1, 201):
        before = parameter.item()
        parameter.grad = torch.ones(1, dtype=torch.float64)
        optimizer.step()
        expected = min(1.0, step / 10) * min(1.0, math.sqrt(50 / step))
        assert before - parameter.item() == pytest.approx(expected, rel=1e-3)


def test_a_count_of_a_whole_group_goes_to_each_of_its_parameters():
    """Checkpoints of version 0.1.0 count the updates of a group, not of a parameter."""
    parameter = nn.Parameter(torch.tensor([1.0, 2.0]))
    optimizer = LaProp([parameter], lr=0.1, warmup=10)
    for _ in range(3):
        parameter.grad = torch.ones(2)
        optimizer.step()
    state = copy.deepcopy(optimizer.state_dict())
    del state["state"][0]["updates"]
    state["param_groups"][0]["updates"] = 3
    resumed = nn.Parameter(parameter.detach().clone())
    other = LaProp([resumed], lr=0.1, warmup=10)
    other.load_state_dict(state)
    for one, weights in ((optimizer, parameter), (other, resumed)):
        weights.grad = torch.tensor([1.0, -1.0])
        one.step()
    assert torch.equal(parameter, resumed)


def test_return_range_moves_by_its_rate_from_zero():
    scale = PercentileRange(rate=0.01, low=0.05, high=0.95, limit=1.0)
    values = torch.linspace(0, 1000, 1001)
    assert scale.update(values).item() == pytest.approx(9.0)  # 1 % of 950 - 50
    assert scale.update(values).item() == pytest.approx(17.91)  # 1.99 %


def test_small_ranges_are_never_scaled_up():
    scale = PercentileRange(rate=1.0, low=0.05, high=0.95, limit=1.0)
    assert scale.update(torch.linspace(0, 0.1, 11)).item() == 1.0

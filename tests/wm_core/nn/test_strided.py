"""Convolutions of stride 2 give torch's own results and gradients."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from wm_core.nn import strided
from wm_core.nn.strided import convolve, convolve_transposed

#: torch's own form, ours, and the axis of the weight that the input's channels are on
FORMS = {
    "convolution": (F.conv2d, convolve, 1),
    "transposed": (F.conv_transpose2d, convolve_transposed, 0),
}


def drawn(axis, kernel, channels=(128, 5), side=8):
    """Input, weight and bias in float32, drawn so that bfloat16 holds them exactly."""
    generator = torch.Generator().manual_seed(0)

    def rand(*shape):
        values = torch.randn(shape, generator=generator).bfloat16().float()
        return values.requires_grad_()

    inputs, outputs = channels
    pair = (outputs, inputs) if axis == 1 else (inputs, outputs)
    return rand(3, inputs, side, side), rand(*pair, kernel, kernel), rand(outputs)


def gradients_of(form, tensors, padding):
    """The result, and the gradients of a random sum of it."""
    result = form(*tensors, padding)
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(result.shape, generator=generator).bfloat16().to(result.dtype)
    return [result.detach(), *torch.autograd.grad((result * weights).sum(), tensors)]


@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (4, 0), (5, 2), (6, 0)])
@pytest.mark.parametrize("form", FORMS)
def test_results_and_gradients_equal_torchs_in_float32(form, kernel, padding):
    plain, own, axis = FORMS[form]
    tensors = drawn(axis, kernel)
    expected = gradients_of(lambda *t: plain(*t[:3], 2, t[3]), tensors, padding)
    for value, got in zip(expected, gradients_of(own, tensors, padding), strict=True):
        torch.testing.assert_close(got, value, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("channels", [(128, 128), (4, 5), (128, 5), (5, 128)])
@pytest.mark.parametrize(("kernel", "padding"), [(4, 1), (4, 0), (5, 2)])
@pytest.mark.parametrize("form", FORMS)
def test_gradients_in_bfloat16_are_those_of_float32_but_for_rounding(
    form, kernel, padding, channels
):
    plain, own, axis = FORMS[form]
    tensors = drawn(axis, kernel, channels)
    expected = gradients_of(lambda *t: plain(*t[:3], 2, t[3]), tensors, padding)
    with torch.autocast("cpu", torch.bfloat16):
        found = gradients_of(own, tensors, padding)
    assert found[0].dtype == torch.bfloat16
    assert all(gradient.dtype == torch.float32 for gradient in found[1:])
    for value, got in zip(expected, found, strict=True):
        assert (got.float() - value).abs().max() < 0.01 * value.abs().max()


@pytest.mark.parametrize("form", FORMS)
def test_wide_weights_take_one_product_in_bfloat16_alone(form, monkeypatch):
    _, own, axis = FORMS[form]
    products, real = [], strided._of_weight
    monkeypatch.setattr(
        strided, "_of_weight", lambda *given: products.append(given) or real(*given)
    )
    wide = drawn(axis, 4, (128, 128))
    gradients_of(own, wide, 1)
    assert not products
    with torch.autocast("cpu", torch.bfloat16):
        gradients_of(own, drawn(axis, 4, (16, 16)), 1)
        assert not products
        gradients_of(own, wide, 1)
    assert len(products) == 1


@pytest.mark.parametrize("form", FORMS)
def test_an_input_without_gradient_gets_none(form):
    _, own, axis = FORMS[form]
    x, weight, bias = drawn(axis, 4)
    own(x.detach(), weight, bias, 1).square().sum().backward()
    assert x.grad is None
    assert weight.grad.abs().sum() > 0
    assert bias.grad.abs().sum() > 0

"""Distributions as functions of uniforms: the same code samples in training and in ONNX.

Every draw takes its randomness as an argument, so that acting can be exported with the noise as
an input of the graph, and so that one seed decides a whole update.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 1e-7  # uniforms are kept this far from 0 and 1


def symlog(x: Tensor) -> Tensor:
    """sign(x) log(1 + |x|), elementwise, of any shape (...)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """The inverse of ``symlog``, elementwise, of any shape (...)."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def unimix_log_probs(logits: Tensor, unimix: float) -> Tensor:
    """(..., K) log-probabilities of a categorical mixed with a share ``unimix`` of uniform."""
    if unimix == 0.0:  # the logarithm of a share that underflows has no gradient
        return torch.log_softmax(logits.float(), -1)
    probs = torch.softmax(logits.float(), -1)
    return torch.log(probs * (1.0 - unimix) + unimix / logits.shape[-1])


def race_weights(uniform: Tensor) -> Tensor:
    """(..., K) weights w such that argmax(probs * w) is a draw from the categorical ``probs``.

    w = 1 / -log(u): the exponential race, which is Gumbel-max after taking the exponential.
    """
    return torch.reciprocal(-torch.log(uniform.clamp(_TINY, 1.0 - _TINY)))


def sample_onehot(probs: Tensor, weights: Tensor) -> Tensor:
    """(..., K) one-hot draw from ``probs`` (..., K), decided by ``race_weights`` (..., K).

    The gradient passes straight through to the probabilities.
    """
    choice = torch.argmax(probs * weights, -1, keepdim=True)
    onehot = (choice == torch.arange(probs.shape[-1], device=probs.device)).to(probs.dtype)
    return onehot + (probs - probs.detach()) if probs.requires_grad else onehot


def draw_gap(log_probs: Tensor, weights: Tensor) -> Tensor:
    """(...) how far the winner of a draw (..., K) is ahead of the second, as a log-ratio."""
    best = (log_probs + weights.log()).topk(2, -1).values
    return best[..., 0] - best[..., 1]


def normal_kl(p: Normal, q: Normal) -> Tensor:
    """(...) KL(p || q) in nats, summed over the last axis of (..., Z)."""
    ratio = (p.std / q.std).square()
    away = ((p.mean - q.mean) / q.std).square()
    return 0.5 * (ratio + away - 1.0 - ratio.log()).sum(-1)


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """(...) KL(p || q) in nats, summed over groups, of log-probabilities (..., S, K)."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def normal_noise(uniform: Tensor) -> Tensor:
    """(...) standard normal quantiles of uniforms (...); 0.5 gives exactly 0.

    A polynomial, because opset 18 has no inverse error function; the relative error is 1e-5, and
    1e-3 within 1e-5 of 0 and 1, where float32 runs out of digits.

    Source: Giles 2012, "Approximating the erfinv function", GPU Computing Gems, table 10.2.
    """
    x = 2.0 * uniform.clamp(_TINY, 1.0 - _TINY) - 1.0
    w = -torch.log((1.0 - x) * (1.0 + x))
    inner, outer = w - 2.5, torch.sqrt(w.clamp_min(5.0)) - 3.0
    near = _polynomial(
        inner,
        (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
         -0.00125372503, -0.00417768164, 0.246640727, 1.50140941),
    )  # fmt: skip
    far = _polynomial(
        outer,
        (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
         -0.0076224613, 0.00943887047, 1.00167406, 2.83297682),
    )  # fmt: skip
    return math.sqrt(2.0) * x * torch.where(w < 5.0, near, far)


def _polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """(...) value at x (...) of the polynomial with these coefficients, highest power first."""
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total


def normal_cdf(x: Tensor) -> Tensor:
    """(...) share of a standard normal below ``x`` (...)."""
    return 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5)))


class Normal(NamedTuple):
    """Independent normals over the last axis: ``mean`` and ``std`` are (..., A)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        """(..., A) what ``sample`` takes, of uniforms (..., A)."""
        return normal_noise(uniform)

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) draw that standard normal ``noise`` (..., A) decides."""
        return self.mean + self.std * noise

    @property
    def mode(self) -> Tensor:
        """(..., A) the draw that uniforms of 0.5 decide."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log-density of ``value`` (..., A), summed over A."""
        z = (value - self.mean) / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """(...) entropy in nats, summed over A."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class TanhNormal(NamedTuple):
    """Normals (..., A) squashed into (-1, 1) by a hyperbolic tangent.

    Source: Dreamer, arXiv:1912.01603, appendix A.
    Deviates: the mode is that of the normal, squashed; the paper takes the likeliest of 100 draws.
    """

    mean: Tensor
    std: Tensor

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        """(..., A) what ``sample`` takes, of uniforms (..., A)."""
        return normal_noise(uniform)

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) draw that standard normal ``noise`` (..., A) decides."""
        return torch.tanh(self.mean + self.std * noise)

    @property
    def mode(self) -> Tensor:
        """(..., A) the draw that uniforms of 0.5 decide."""
        return torch.tanh(self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log-density of ``value`` (..., A) within (-1, 1), summed over A."""
        inside = value.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        slope = torch.log1p(-inside.square()).sum(-1)
        return Normal(self.mean, self.std).log_prob(torch.atanh(inside)) - slope

    def entropy(self) -> Tensor:
        """(...) entropy in nats, summed over A; the tangent's slope is taken at the mean."""
        slope = 2.0 * (math.log(2.0) - self.mean - F.softplus(-2.0 * self.mean))
        return Normal(self.mean, self.std).entropy() + slope.sum(-1)


class TruncatedNormal(NamedTuple):
    """Normals (..., A) cut to [-1, 1].

    Source: DreamerV2 (code), arXiv:2010.02193: the actor of continuous actions.
    """

    mean: Tensor
    std: Tensor

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        """(..., A) what ``sample`` takes: the uniforms (..., A) themselves."""
        return uniform

    def _edges(self) -> tuple[Tensor, Tensor]:
        return (-1.0 - self.mean) / self.std, (1.0 - self.mean) / self.std

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) draw that uniforms ``noise`` (..., A) decide, by the inverse of the cdf."""
        low, high = (normal_cdf(edge) for edge in self._edges())
        drawn = self.mean + self.std * normal_noise(low + noise * (high - low))
        return drawn.clamp(-1.0, 1.0)

    @property
    def mode(self) -> Tensor:
        """(..., A) the draw that uniforms of 0.5 decide: the median."""
        return self.sample(torch.full_like(self.mean, 0.5))

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log-density of ``value`` (..., A) within [-1, 1], summed over A."""
        low, high = (normal_cdf(edge) for edge in self._edges())
        share = torch.log((high - low).clamp_min(1e-6)).sum(-1)
        return Normal(self.mean, self.std).log_prob(value) - share

    def entropy(self) -> Tensor:
        """(...) entropy in nats, summed over A."""
        low, high = self._edges()
        share = (normal_cdf(high) - normal_cdf(low)).clamp_min(1e-6)
        density_low, density_high = (torch.exp(-0.5 * edge.square()) for edge in (low, high))
        turn = (low * density_low - high * density_high) / (2.0 * math.sqrt(2 * math.pi) * share)
        each = torch.log(self.std * share) + 0.5 * math.log(2 * math.pi * math.e) + turn
        return each.sum(-1)


class OneHot(NamedTuple):
    """One choice among A, as one-hot draws; ``log_probs`` are (..., A)."""

    log_probs: Tensor

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        """(..., A) what ``sample`` takes, of uniforms (..., A)."""
        return race_weights(uniform)

    def sample(self, noise: Tensor) -> Tensor:
        """(..., A) one-hot draw; the gradient passes straight through to the probabilities."""
        return sample_onehot(self.log_probs.exp(), noise)

    @property
    def mode(self) -> Tensor:
        """(..., A) the likeliest choice: the draw that uniforms of 0.5 decide."""
        return sample_onehot(self.log_probs.detach().exp(), torch.ones_like(self.log_probs))

    def log_prob(self, value: Tensor) -> Tensor:
        """(...) log-probability of one-hot ``value`` (..., A)."""
        return (self.log_probs * value).sum(-1)

    def entropy(self) -> Tensor:
        """(...) entropy in nats."""
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


ActionDist = Normal | TanhNormal | TruncatedNormal | OneHot


class TwoHot(nn.Module):
    """Real numbers as categories over exponentially spaced bins.

    Args:
        bins: number of bins, odd so that one lies at zero.
        limit: the outermost bin is symexp(limit).

    Source: DreamerV3, arXiv:2301.04104, "symexp two-hot".
    """

    def __init__(self, bins: int, limit: float = 20.0) -> None:
        super().__init__()
        if bins % 2 == 0:
            raise ValueError(f"two-hot wants an odd number of bins, got {bins}")
        half = symexp(torch.linspace(0.0, limit, bins // 2 + 1, dtype=torch.float64))
        centers = torch.cat([-half[1:].flip(0), half]).float()
        self.centers: Tensor
        self.register_buffer("centers", centers, persistent=False)

    def mean(self, logits: Tensor) -> Tensor:
        """(...) expected value of ``logits`` (..., bins); exactly 0 where they are all equal.

        The two halves are subtracted bin by bin before they are summed, because the outer bins
        are so large that any other order leaves rounding errors behind.
        """
        probs = torch.softmax(logits.float(), -1)
        half = self.centers.shape[0] // 2
        upper = probs[..., half + 1 :] - probs[..., :half].flip(-1)
        return (upper * self.centers[half + 1 :]).sum(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """(...) cross entropy in nats of ``logits`` (..., bins) to ``target`` (...)."""
        target = target.detach().float().contiguous()
        centers = self.centers
        above = torch.searchsorted(centers, target, right=True).clamp(1, len(centers) - 1)
        low, high = centers[above - 1], centers[above]
        share = ((target - low) / (high - low)).clamp(0.0, 1.0)
        log_probs = torch.log_softmax(logits.float(), -1)
        at = torch.stack([above - 1, above], -1)
        near = log_probs.gather(-1, at)
        return -(near[..., 0] * (1.0 - share) + near[..., 1] * share)


class _SigmoidError(torch.autograd.Function):
    """Squared error of a sigmoid, summed per row, in half the passes over memory of autograd."""

    @staticmethod
    def forward(ctx: Any, logit: Tensor, target: Tensor) -> Tensor:
        made = torch.sigmoid(logit.float())
        error = made - target
        ctx.save_for_backward(made, error)
        ctx.dtype = logit.dtype
        return torch.linalg.vector_norm(error.flatten(1), dim=1).square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        made, error = ctx.saved_tensors
        rows = gradients[0].reshape(-1, *[1] * (made.ndim - 1))
        slope = torch.addcmul(made, made, made, value=-1.0)
        return slope.mul_(error).mul_(2.0 * rows).to(ctx.dtype), None


def sigmoid_error(logit: Tensor, target: Tensor) -> Tensor:
    """(N,) squared error of sigmoid(``logit``) to ``target``, both (N, ...), summed per row."""
    return _SigmoidError.apply(logit, target)  # type: ignore[no-untyped-call]


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """(...) cross entropy in nats of ``logit`` (...) to the probability ``target`` (...)."""
    return F.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")

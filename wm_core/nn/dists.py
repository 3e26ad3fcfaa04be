"""Distributions that sample from given uniform numbers, in training and in ONNX alike.

Every sample takes its randomness as an argument, so that acting can be exported with the noise as
an input of the graph, and so that one seed decides a whole update.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_TINY = 1e-7  # least distance of uniforms from 0 and 1


def symlog(x: Tensor) -> Tensor:
    """Compute sign(x) log(1 + |x|), elementwise, of any shape (...)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: Tensor) -> Tensor:
    """Compute the inverse of ``symlog``, elementwise, of any shape (...)."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


def unimix_log_probs(logits: Tensor, unimix: float) -> Tensor:
    """Mix a categorical (..., K) with a share ``unimix`` of uniform; returns log-probabilities."""
    if unimix == 0.0:  # the logarithm of a share that underflows has no gradient
        return torch.log_softmax(logits.float(), -1)
    probs = torch.softmax(logits.float(), -1)
    return torch.log(probs * (1.0 - unimix) + unimix / logits.shape[-1])


def race_weights(uniform: Tensor) -> Tensor:
    """Compute weights w (..., K) such that argmax(probs * w) samples the categorical ``probs``.

    w = 1 / -log(u): the exponential race, which is Gumbel-max after taking the exponential.
    """
    return torch.reciprocal(-torch.log(uniform.clamp(_TINY, 1.0 - _TINY)))


def sample_onehot(probs: Tensor, weights: Tensor) -> Tensor:
    """Sample one-hot from ``probs`` (..., K) by ``race_weights`` (..., K).

    The gradient passes straight through to the probabilities.
    """
    choice = torch.argmax(probs * weights, -1, keepdim=True)
    onehot = (choice == torch.arange(probs.shape[-1], device=probs.device)).to(probs.dtype)
    return onehot + (probs - probs.detach()) if probs.requires_grad else onehot


def draw_gap(log_probs: Tensor, weights: Tensor) -> Tensor:
    """(...) how far the winner of a draw (..., K) is ahead of the second, as a log-ratio."""
    best = (log_probs + weights.log()).topk(2, -1).values
    return best[..., 0] - best[..., 1]


def each_group(change: Callable[..., Tensor], groups: tuple[int, ...], *values: Tensor) -> Tensor:
    """Apply ``change`` to the part of every group, and join what it gives along the last axis.

    Args:
        change: takes (..., K), (..., G, K) or the like for each of ``values``; gives (..., n).
        groups: lengths of the parts; () for a single one.
        *values: (..., A) each.
    """
    if not groups:
        return change(*values)
    if len({*groups}) == 1:
        table = (len(groups), groups[0])
        return change(*(value.unflatten(-1, table) for value in values)).flatten(-2)
    parts = zip(*(value.split(groups, -1) for value in values), strict=True)
    return torch.cat([change(*part) for part in parts], -1)


def normal_kl(p: Normal, q: Normal) -> Tensor:
    """Compute KL(p || q) (...) in nats, summed over the last axis of (..., Z)."""
    ratio = (p.std / q.std).square()
    distance = ((p.mean - q.mean) / q.std).square()
    return 0.5 * (ratio + distance - 1.0 - ratio.log()).sum(-1)


def categorical_kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Compute KL(p || q) (...) in nats, summed over groups, of log-probabilities (..., S, K)."""
    return (log_p.exp() * (log_p - log_q)).sum((-2, -1))


def normal_noise(uniform: Tensor) -> Tensor:
    """Turn uniforms (...) into standard normal noise (...); 0.5 gives exactly 0.

    It is a polynomial, because opset 18 has no inverse error function; the relative error is
    1e-5, and 1e-3 within 1e-5 of 0 and 1, where float32 runs out of digits.

    Source: Giles 2012, "Approximating the erfinv function", GPU Computing Gems, table 10.2.
    """
    x = 2.0 * uniform.clamp(_TINY, 1.0 - _TINY) - 1.0
    w = -torch.log((1.0 - x) * (1.0 + x))
    inner, outer = w - 2.5, torch.sqrt(w.clamp_min(5.0)) - 3.0
    both = _polynomials(
        torch.stack([inner, outer], -1),
        (
            (2.81022636e-08, -0.000200214257),
            (3.43273939e-07, 0.000100950558),
            (-3.5233877e-06, 0.00134934322),
            (-4.39150654e-06, -0.00367342844),
            (0.00021858087, 0.00573950773),
            (-0.00125372503, -0.0076224613),
            (-0.00417768164, 0.00943887047),
            (0.246640727, 1.00167406),
            (1.50140941, 2.83297682),
        ),
    )
    near, far = both.unbind(-1)
    return math.sqrt(2.0) * x * torch.where(w < 5.0, near, far)


def _polynomials(x: Tensor, coefficients: tuple[tuple[float, ...], ...]) -> Tensor:
    """Evaluate polynomials side by side at x (..., n); coefficients (n,), highest power first."""
    first, *others = x.new_tensor(coefficients).unbind(0)
    total = first * torch.ones_like(x)
    for coefficient in others:
        total = total * x + coefficient
    return total


def normal_cdf(x: Tensor) -> Tensor:
    """Compute the share (...) of a standard normal below ``x`` (...)."""
    return 0.5 * (1.0 + torch.erf(x * math.sqrt(0.5)))


class Normal(NamedTuple):
    """Independent normals over the last axis: ``mean`` and ``std`` are (..., A)."""

    mean: Tensor
    std: Tensor

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        """Turn uniforms (..., A) into the noise (..., A) that ``sample`` takes."""
        return normal_noise(uniform)

    def sample(self, noise: Tensor) -> Tensor:
        """Sample (..., A) by ``noise`` (..., A)."""
        return self.mean + self.std * noise

    @property
    def mode(self) -> Tensor:
        """The sample (..., A) that uniforms of 0.5 give."""
        return self.mean

    def log_prob(self, value: Tensor) -> Tensor:
        """Compute the log-density (...) of ``value`` (..., A), summed over A."""
        z = (value - self.mean) / self.std
        return (-0.5 * z.square() - self.std.log() - 0.5 * math.log(2 * math.pi)).sum(-1)

    def entropy(self) -> Tensor:
        """Compute the entropy (...) in nats, summed over A."""
        return (self.std.log() + 0.5 * math.log(2 * math.pi * math.e)).sum(-1)


class TanhNormal(Normal):
    """Normals (..., A) squashed into (-1, 1) by a hyperbolic tangent.

    Source: Dreamer, arXiv:1912.01603, appendix A.
    Deviates: the mode is that of the normal, squashed; the paper takes the likeliest of 100 draws.
    """

    __slots__ = ()

    def sample(self, noise: Tensor) -> Tensor:
        return torch.tanh(super().sample(noise))

    @property
    def mode(self) -> Tensor:
        return torch.tanh(self.mean)

    def log_prob(self, value: Tensor) -> Tensor:
        inside = value.clamp(-1.0 + 1e-6, 1.0 - 1e-6)
        slope = torch.log1p(-inside.square()).sum(-1)
        return super().log_prob(torch.atanh(inside)) - slope

    def entropy(self) -> Tensor:
        # the slope of the tangent is taken at the mean
        slope = 2.0 * (math.log(2.0) - self.mean - F.softplus(-2.0 * self.mean))
        return super().entropy() + slope.sum(-1)


class TruncatedNormal(Normal):
    """Normals (..., A) truncated to [-1, 1]; noise is uniform, the mode is the median.

    Source: DreamerV2 (code), arXiv:2010.02193: the actor of continuous actions.
    """

    __slots__ = ()

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        return uniform

    def _edges(self) -> tuple[Tensor, Tensor]:
        return (-1.0 - self.mean) / self.std, (1.0 - self.mean) / self.std

    def sample(self, noise: Tensor) -> Tensor:
        low, high = (normal_cdf(edge) for edge in self._edges())
        sample = self.mean + self.std * normal_noise(low + noise * (high - low))
        return sample.clamp(-1.0, 1.0)

    @property
    def mode(self) -> Tensor:
        return self.sample(torch.full_like(self.mean, 0.5))

    def log_prob(self, value: Tensor) -> Tensor:
        low, high = (normal_cdf(edge) for edge in self._edges())
        return super().log_prob(value) - torch.log((high - low).clamp_min(1e-6)).sum(-1)

    def entropy(self) -> Tensor:
        low, high = self._edges()
        share = (normal_cdf(high) - normal_cdf(low)).clamp_min(1e-6)
        density_low, density_high = (torch.exp(-0.5 * edge.square()) for edge in (low, high))
        turn = (low * density_low - high * density_high) / (2.0 * math.sqrt(2 * math.pi) * share)
        each = torch.log(self.std * share) + 0.5 * math.log(2 * math.pi * math.e) + turn
        return each.sum(-1)


class OneHot(NamedTuple):
    """One choice among A as a one-hot vector, with log-probabilities (..., A).

    Of ``groups``: independent choices, their one-hots in a row; probabilities of each sum to 1.
    Its methods are those of ``Normal``; the gradient of a sample passes straight through to the
    probabilities, and the mode is the likeliest choice.
    """

    log_probs: Tensor
    groups: tuple[int, ...] = ()  #: of several choices, how many each has; they sum to A

    @classmethod
    def of(cls, logits: Tensor, groups: tuple[int, ...] = (), unimix: float = 0.0) -> OneHot:
        """Make it from ``logits`` (..., A), with a share ``unimix`` of uniform in every choice."""
        return cls(each_group(lambda x: unimix_log_probs(x, unimix), groups, logits), groups)

    @staticmethod
    def noise(uniform: Tensor) -> Tensor:
        return race_weights(uniform)

    def sample(self, noise: Tensor) -> Tensor:
        return each_group(sample_onehot, self.groups, self.log_probs.exp(), noise)

    @property
    def mode(self) -> Tensor:
        probs = self.log_probs.detach().exp()
        return each_group(sample_onehot, self.groups, probs, torch.ones_like(probs))

    def gap(self, noise: Tensor) -> Tensor:
        """(..., G) how far the winner of each draw by ``noise`` (..., A) is ahead, a log-ratio."""
        return each_group(
            lambda *part: draw_gap(*part).unsqueeze(-1), self.groups, self.log_probs, noise
        )

    def log_prob(self, value: Tensor) -> Tensor:
        return (self.log_probs * value).sum(-1)

    def entropy(self) -> Tensor:
        return -(self.log_probs.exp() * self.log_probs).sum(-1)


ActionDist = Normal | OneHot


class TwoHot(nn.Module):
    """Predicts real numbers as categories over exponentially spaced bins.

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
        """Compute the expected value (...) of ``logits`` (..., bins); 0 where all are equal.

        The two halves are subtracted bin by bin before they are summed, because the outer bins
        are so large that any other order leaves rounding errors behind.
        """
        probs = torch.softmax(logits.float(), -1)
        half = self.centers.shape[0] // 2
        upper = probs[..., half + 1 :] - probs[..., :half].flip(-1)
        return (upper * self.centers[half + 1 :]).sum(-1)

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Compute the cross entropy (...) in nats of ``logits`` (..., bins) to ``target``."""
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
    """Computes ``sigmoid_error`` in half of autograd's passes over memory."""

    @staticmethod
    def forward(ctx: Any, logit: Tensor, target: Tensor) -> Tensor:
        value = torch.sigmoid(logit.float())
        error = value - target
        ctx.save_for_backward(value, error)
        ctx.dtype = logit.dtype
        return torch.linalg.vector_norm(error.flatten(1), dim=1).square()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        value, error = ctx.saved_tensors
        rows = gradients[0].reshape(-1, *[1] * (value.ndim - 1))
        slope = torch.addcmul(value, value, value, value=-1.0)
        return slope.mul_(error).mul_(2.0 * rows).to(ctx.dtype), None


def sigmoid_error(logit: Tensor, target: Tensor) -> Tensor:
    """Sum the squared error of sigmoid(``logit``) to ``target``, (N, ...) each, to (N,)."""
    return _SigmoidError.apply(logit, target)  # type: ignore[no-untyped-call]


def bernoulli_loss(logit: Tensor, target: Tensor) -> Tensor:
    """Compute the cross entropy (...) in nats of ``logit`` (...) to probabilities ``target``."""
    return F.binary_cross_entropy_with_logits(logit.float(), target, reduction="none")

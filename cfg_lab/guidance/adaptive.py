"""Holding guidance back at a step by what the branches say there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number


class Adaptive(Protocol):
    """Chooses a scale between 1 and the one that is meant."""

    def held_back(
        self,
        scale: Tensor,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        guided: Callable[[Tensor], Tensor],
    ) -> Tensor:
        """scale [rows, 1] to the scale in force [rows, 1].

        positive, negatives and weights as in `Guidance.guide`; guided(scale) is the guided distribution at
        a scale, log-probs [rows, vocab].
        """
        ...


@dataclass(frozen=True)
class NotAdaptive:
    """The scale that is meant, whatever the branches say."""

    def held_back(
        self,
        scale: Tensor,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        guided: Callable[[Tensor], Tensor],
    ) -> Tensor:
        return scale


@dataclass(frozen=True, kw_only=True)
class ByEntropy:
    """Full guidance where the positive branch is unsure, less where it is sure: names, facts, punctuation.

        scale_t = 1 + (scale - 1) * min(1, H(positive) / reference)

    Args:
        reference: nats, above 0.
    """

    reference: float = 2.0

    def __post_init__(self) -> None:
        check_number("adaptive.reference", self.reference, "a number of nats above 0", low=SMALLEST)

    def held_back(
        self,
        scale: Tensor,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        guided: Callable[[Tensor], Tensor],
    ) -> Tensor:
        entropy = -_vecdot(positive.exp(), positive)
        return torch.lerp(torch.ones_like(scale), scale, (entropy / self.reference).clamp(max=1)[:, None])


@dataclass(frozen=True, kw_only=True)
class ByDivergence:
    """Full guidance while the branches are near each other, less where they disagree so much that any push
    between them is a leap.

        scale_t = 1 + (scale - 1) * min(1, reference / KL(positive || negative))

    of several negatives their weighted mean.

    Args:
        reference: nats, above 0.
    """

    reference: float = 1.0

    def __post_init__(self) -> None:
        check_number("adaptive.reference", self.reference, "a number of nats above 0", low=SMALLEST)

    def held_back(
        self,
        scale: Tensor,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        guided: Callable[[Tensor], Tensor],
    ) -> Tensor:
        probs = positive.exp()
        each = _vecdot(probs, positive)[:, None] - _vecdot(probs[:, None], negatives)  # [rows, branches]
        size = weights.abs()
        divergence = (each * size).sum(1, keepdim=True) / size.sum(1, keepdim=True)
        share = (self.reference / divergence.clamp(min=1e-9)).clamp(max=1)
        return torch.lerp(torch.ones_like(scale), scale, share)


@dataclass(frozen=True, kw_only=True)
class KLBudget:
    """A trust region: the scale nearest to the one meant with KL(guided || positive) <= nats.

    Found by bisection between 1, which always fits, and the scale meant; never above the budget, and within
    1/1024 of the way of the largest scale that fits where the divergence grows with the scale, as it does
    for classifier-free guidance.

    Args:
        nats: the budget of each token, above 0.
    """

    nats: float = 0.5

    def __post_init__(self) -> None:
        check_number("adaptive.nats", self.nats, "a number of nats above 0", low=SMALLEST)

    def held_back(
        self,
        scale: Tensor,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        guided: Callable[[Tensor], Tensor],
    ) -> Tensor:
        def fits(scale: Tensor) -> Tensor:
            log_probs = guided(scale)
            probs = log_probs.exp()
            nats = (_vecdot(probs, log_probs) - _vecdot(probs, positive))[:, None]
            return ~(nats > self.nats)  # not a number fits: a broken branch has to show

        low, high = torch.ones_like(scale), scale
        low = torch.where(fits(scale), scale, low)
        for _ in range(10):
            middle = (low + high) / 2
            inside = fits(middle)
            low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
        return low


def _vecdot(x: Tensor, y: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.vecdot(x, y))

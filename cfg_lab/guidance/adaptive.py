"""Adaptive strength: a step's guidance scale depends on the branches' distributions at this step.

The scale in force is the scale that a step uses. It lies between 1 (guidance is off) and the rule's scale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number
from cfg_lab.guidance.divergences import entropy, js_divergence, kl_divergence


@dataclass(frozen=True, kw_only=True, eq=False)
class Branches:
    """The distributions of all branches at one step, one row per sequence.

    Attributes:
        positive: log-probs [rows, vocab], float32, normalised and finite.
        negatives: log-probs [rows, branches, vocab], float32, normalised and finite.
        weights: [rows, branches] float32, as the requests give them.
        steps: [rows] int64, number of new tokens so far. None unless the scale is learned (see `policy`).
    """

    positive: Tensor
    negatives: Tensor
    weights: Tensor
    steps: Tensor | None = None


class Adaptive(Protocol):
    """Chooses the scale in force (the scale that a step uses), a value between 1 and the rule's scale."""

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the scale in force, [rows, 1].

        Args:
            scale: the rule's scale after its schedule, [rows, 1].
            branches: the distributions at this step.
            guided: a function that computes the guided log-probs [rows, vocab] at a given scale [rows, 1].
        """
        ...


@dataclass(frozen=True)
class NotAdaptive:
    """No adaptive strength: the scale in force (the scale that is used) is the rule's scale."""

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        return scale


@dataclass(frozen=True, kw_only=True)
class ByEntropy:
    """Guidance grows with the entropy of the positive branch: weak where the model is sure of the next token.

        scale_t = 1 + (scale - 1) * min(1, H(positive) / reference)

    Args:
        reference: an entropy in nats, above 0. Guidance is full at this entropy and at any higher one.
    """

    reference: float = 2.0

    def __post_init__(self) -> None:
        check_number("adaptive.reference", self.reference, "a number of nats above 0", low=SMALLEST)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        share = (entropy(branches.positive)[:, None] / self.reference).clamp(max=1)
        return 1 + (scale - 1) * share


@dataclass(frozen=True, kw_only=True)
class EntropyGate:
    """Full guidance where the positive branch is unsure of the next token, no guidance elsewhere.

        scale_t = scale   where H(positive) > threshold
                  1       elsewhere

    This is the selective guidance of minimal test-time intervention (MTI, Yang et al. 2025,
    arXiv:2510.13940). The negatives run at every step, also where guidance is off. So they have read all
    tokens when guidance is on again.

    Args:
        threshold: an entropy in nats, at least 0. The default is this lab's choice, not the paper's.
    """

    threshold: float = 1.0

    def __post_init__(self) -> None:
        check_number("adaptive.threshold", self.threshold, "a number of nats, at least 0", low=0)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        is_unsure = entropy(branches.positive)[:, None] > self.threshold
        return torch.where(is_unsure, scale, 1)


@dataclass(frozen=True, kw_only=True)
class ByDivergence:
    """Guidance is weaker where the branches differ more, so that no single step changes the text too much.

        scale_t = 1 + (scale - 1) * min(1, reference / KL(positive || negative))

    With several negatives, the mean of their divergences is used, weighted by the absolute values of their
    weights. `ByJSD` does the opposite: guidance is stronger where the branches differ more.

    Args:
        reference: a divergence in nats, above 0. Guidance is full at this divergence and at any smaller one.
    """

    reference: float = 1.0

    def __post_init__(self) -> None:
        check_number("adaptive.reference", self.reference, "a number of nats above 0", low=SMALLEST)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        positive = branches.positive[:, None]  # [rows, 1, vocab]
        divergence = weighted_mean(kl_divergence(positive, branches.negatives), branches.weights)
        share = (self.reference / divergence.clamp(min=1e-9)).clamp(max=1)
        return 1 + (scale - 1) * share


@dataclass(frozen=True, kw_only=True)
class ByJSD:
    """Guidance grows with the divergence between the branches: adaptive context-aware decoding.

        scale_t = 1 + (scale - 1) * max(floor, JSD(positive, negative))

    Source: AdaCAD (Wang et al. 2024, arXiv:2409.07394). The paper's scale is 1 + JSD. Here, scale 2 with
    floor 0 gives the paper's scale. The Jensen-Shannon divergence (JSD) is at most log 2 = 0.69 nats. So
    guidance is never full if the floor is below 1. With several negatives, the mean of their divergences is
    used, weighted by the absolute values of their weights. `ByDivergence` does the opposite: guidance is
    weaker where the branches differ more.

    Args:
        floor: the smallest share of guidance, in [0, 1]; 0 is no guidance, 1 is full guidance.
    """

    floor: float = 0.0

    def __post_init__(self) -> None:
        check_number("adaptive.floor", self.floor, "a share of guidance in [0, 1]", low=0, high=1)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        positive = branches.positive[:, None]  # [rows, 1, vocab]
        divergence = weighted_mean(js_divergence(positive, branches.negatives), branches.weights)
        return 1 + (scale - 1) * divergence.clamp(min=self.floor)


@dataclass(frozen=True, kw_only=True)
class KLBudget:
    """A trust region: the scale in force keeps KL(guided || positive) at or below a budget.

    If the rule's scale keeps the budget, it is used. Otherwise a scale nearer to 1 is found by ten steps of
    bisection between scale 1, where the divergence is 0, and the rule's scale. The result never exceeds the
    budget.

    For classifier-free guidance the divergence grows with the distance from scale 1. Then the result differs
    from the exact solution by at most 1/1024 of the interval between 1 and the rule's scale.

    Args:
        nats: the budget, that is, the largest divergence allowed at each token; above 0.
    """

    nats: float = 0.5

    def __post_init__(self) -> None:
        check_number("adaptive.nats", self.nats, "a number of nats above 0", low=SMALLEST)

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        def fits(scale: Tensor) -> Tensor:
            divergence = kl_divergence(guided(scale), branches.positive)[:, None]  # [rows, 1]
            # NaN counts as within the budget, so that a branch with NaN logits reaches the decoder's check.
            return ~(divergence > self.nats)

        low, high = torch.ones_like(scale), scale
        low = torch.where(fits(scale), scale, low)
        for _ in range(10):
            middle = (low + high) / 2
            middle_fits = fits(middle)
            low, high = torch.where(middle_fits, middle, low), torch.where(middle_fits, high, middle)
        return low


def weighted_mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean [rows, 1] of values [rows, branches], weighted by the absolute values of the weights."""
    sizes = weights.abs()
    return (values * sizes).sum(1, keepdim=True) / sizes.sum(1, keepdim=True)

"""Modifiers: changes to any rule's input (the negatives) or output (the guided distribution).

A rule applies its modifiers in the order in which they are written. Sums over the vocabulary leave out
impossible tokens. Log-probs are centred before projections and norms: a constant added to them would change
projections and norms, but not the distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.guidance.checks import check_number
from cfg_lab.guidance.log_probs import FLOOR, log_probs


class Modifier:
    """Base class of modifiers. The base class itself changes nothing.

    A modifier is a frozen dataclass that derives from this class and overrides one of its methods.

    Tensors: `positive` and `guided` are log-probs [rows, vocab], `negatives` are log-probs
    [rows, branches, vocab], `scale` is [rows, 1].
    """

    def modify_negatives(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """Change the negatives before the rule combines the branches. The result is normalised and finite."""
        return negatives

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        """Change the guided log-probs that the rule has computed.

        The result need not be normalised. -inf marks an impossible token.
        """
        return guided


@dataclass(frozen=True, kw_only=True)
class Plausibility(Modifier):
    """Rules out tokens that are implausible under the positive branch (Li et al. 2022, arXiv:2210.15097).

        guided = -inf   where p < threshold * max(p)

    where p are the probabilities of the positive branch.

    Args:
        threshold: in [0, 1]; 0 keeps every token, 1 keeps only the likeliest token.
    """

    threshold: float = 0.1

    def __post_init__(self) -> None:
        check_number(
            "modifiers.plausible.threshold", self.threshold, "a number in [0, 1]; 0 is off", low=0, high=1
        )

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        if self.threshold == 0:
            return guided
        lowest = positive.amax(-1, keepdim=True) + math.log(self.threshold)
        return guided.masked_fill(positive < lowest, -math.inf)


@dataclass(frozen=True, kw_only=True)
class Rescale(Modifier):
    """Moves the standard deviation of the guided log-probs towards that of the positive branch.

        guided = (1 - share) * guided + share * guided * std(positive) / std(guided)

    Source: Lin et al. 2023 (arXiv:2305.08891).

    Args:
        share: in [0, 1]; 0 changes nothing, 1 gives exactly the standard deviation of the positive branch.
    """

    share: float = 0.7

    def __post_init__(self) -> None:
        check_number("modifiers.rescale.share", self.share, "a number in [0, 1]; 0 is off", low=0, high=1)

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        possible = _possible(guided, positive)
        ratio = _norm(_centred(positive, possible)) / _norm(_centred(guided, possible)).clamp(min=1e-9)
        return torch.where(possible, guided * (1 - self.share + self.share * ratio), guided)


@dataclass(frozen=True, kw_only=True)
class AdaptiveProjection(Modifier):
    """Limits the norm of the guidance change, and removes the part parallel to the positive branch.

        change = (guided - positive) / (scale - 1)
        change = change * min(1, norm_bound / ||change||)
        guided = positive + (scale - 1) * (orthogonal + parallel * (change - orthogonal))

    where `orthogonal` is the component of `change` that is orthogonal to the positive branch's log-probs.
    Source: adaptive projected guidance (APG, Sadat et al. 2024, arXiv:2410.02416).

    Args:
        parallel: the share of the parallel component that is kept; 0 keeps nothing, 1 keeps all of it.
        norm_bound: the largest Euclidean norm of `change`, at least 0. None means no bound.
    """

    parallel: float = 0.0
    norm_bound: float | None = 150.0

    def __post_init__(self) -> None:
        check_number("modifiers.apg.parallel", self.parallel, "a finite number; 1 keeps all, 0 none")
        if self.norm_bound is not None:
            requirement = "a number of at least 0, or null for no bound"
            check_number("modifiers.apg.norm_bound", self.norm_bound, requirement, low=0)

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        possible = _possible(guided, positive)
        strength = scale - 1
        strength = torch.where(strength == 0, 1, strength)  # avoids 0 / 0; the rule ignores these rows
        change = _centred((guided - positive) / strength, possible)
        if self.norm_bound is not None:
            change = change * (self.norm_bound / _norm(change).clamp(min=1e-9)).clamp(max=1)
        direction = _centred(positive, possible)
        coefficient = _dot(change, direction) / _dot(direction, direction).clamp(min=1e-9)
        parallel = coefficient * direction
        orthogonal = change - parallel
        projected = positive + strength * (orthogonal + self.parallel * parallel)
        return torch.where(guided == -math.inf, guided, projected)


@dataclass(frozen=True)
class ZeroStar(Modifier):
    """Scales each negative to fit the positive branch best, by least squares (CFG-Zero*, arXiv:2503.18886).

    negative = negative * <positive, negative> / ||negative||^2
    """

    def modify_negatives(self, positive: Tensor, negatives: Tensor) -> Tensor:
        possible = (positive > FLOOR)[:, None]  # [rows, 1, vocab]
        centred = _centred(negatives, possible)
        coefficient = _dot(_centred(positive[:, None], possible), centred)
        coefficient = coefficient / _dot(centred, centred).clamp(min=1e-9)
        fitted = log_probs((coefficient * centred).masked_fill(~possible, -math.inf))
        return torch.where(possible, fitted, negatives)


def _possible(guided: Tensor, positive: Tensor) -> Tensor:
    """Mask of the tokens that are possible under the positive branch and that no modifier has ruled out."""
    return (positive > FLOOR) & (guided > -math.inf)


def _centred(x: Tensor, possible: Tensor) -> Tensor:
    """x minus its mean over the possible tokens; 0 at all other tokens."""
    mean = x.masked_fill(~possible, 0).sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
    return (x - mean).masked_fill(~possible, 0)


def _dot(x: Tensor, y: Tensor) -> Tensor:
    return (x * y).sum(-1, keepdim=True)


def _norm(x: Tensor) -> Tensor:
    return _dot(x, x).sqrt()

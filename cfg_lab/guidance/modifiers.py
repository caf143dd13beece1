"""What can be done to any rule: to the negatives before its formula, to the guided distribution after it.

Sums over the vocabulary leave out the tokens that are impossible under the positive branch, and log-probs are
centred before they are projected: they mean the same up to a constant, projections and norms do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.checks import check_number
from cfg_lab.guidance.log_probs import FLOOR, log_probs


@dataclass(frozen=True, kw_only=True)
class Modifiers:
    """All of them; a neutral value leaves its modifier out. In the order in which they act:

    Args:
        zero_star: scale each negative to fit the positive best (CFG-Zero*, arXiv:2503.18886).
        norm_bound: at most this Euclidean norm of the change per unit of scale; None is no bound.
        projection: keep this share of the part of the change that is parallel to the positive branch; with
            norm_bound adaptive projected guidance (APG, arXiv:2410.02416). 1 is neutral, APG has 0.
        rescale: in [0, 1], how far the guided log-probs are brought back to the spread of the positive
            branch's (Lin et al. 2023, arXiv:2305.08891). 0 is neutral.
        plausibility: in [0, 1]: tokens less likely than this share of the likeliest under the positive branch
            are impossible (Li et al. 2022, arXiv:2210.15097, have 0.1). 0 is neutral.
    """

    zero_star: bool = False
    norm_bound: float | None = None
    projection: float = 1.0
    rescale: float = 0.0
    plausibility: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.zero_star, bool):
            raise InputError(f"guidance.modifiers.zero_star must be true or false, got {self.zero_star!r}")
        if self.norm_bound is not None:
            check_number("modifiers.norm_bound", self.norm_bound, "a number of at least 0, or null", low=0)
        check_number("modifiers.projection", self.projection, "a finite number; 1 is neutral, 0 removes it")
        for name in ("rescale", "plausibility"):
            wanted = "a number in [0, 1]; 0 is neutral"
            check_number(f"modifiers.{name}", getattr(self, name), wanted, low=0, high=1)

    def before(self, positive: Tensor, negatives: Tensor) -> Tensor:
        """positive [rows, vocab] and negatives [rows, branches, vocab] -> negatives."""
        return fitted(positive, negatives) if self.zero_star else negatives

    def after(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        """guided and positive [rows, vocab], scale [rows, 1] -> guided, not normalised."""
        if self.norm_bound is not None or self.projection != 1:
            guided = projected(guided, positive, scale, self.projection, self.norm_bound)
        if self.rescale:
            guided = rescaled(guided, positive, self.rescale)
        if self.plausibility:
            guided = plausible(guided, positive, self.plausibility)
        return guided


def plausible(guided: Tensor, positive: Tensor, share: float) -> Tensor:
    """guided, -inf where positive < log(share) + max(positive)."""
    least = positive.amax(-1, keepdim=True) + math.log(share)
    return guided.masked_fill(positive < least, -math.inf)


def rescaled(guided: Tensor, positive: Tensor, share: float) -> Tensor:
    """(1 - share) * guided + share * guided * std(positive) / std(guided)."""
    possible = positive > FLOOR
    ratio = _norm(_centred(positive, possible)) / _norm(_centred(guided, possible)).clamp(min=1e-9)
    return torch.where(possible, guided * (1 - share + share * ratio), guided)


def projected(
    guided: Tensor, positive: Tensor, scale: Tensor, parallel: float, bound: float | None
) -> Tensor:
    """positive + (scale - 1) * change, the change per unit of scale bounded and stripped of what is parallel
    to positive."""
    possible = positive > FLOOR
    strength = torch.where(scale == 1, 1, scale - 1)  # nothing changes at scale 1
    change = _centred((guided - positive) / strength, possible)
    if bound is not None:
        change = change * (bound / _norm(change).clamp(min=1e-9)).clamp(max=1)
    direction = _centred(positive, possible)
    share = (change * direction).sum(-1, keepdim=True) / _norm(direction).square().clamp(min=1e-9)
    return positive + strength * (change - (1 - parallel) * share * direction)


def fitted(positive: Tensor, negatives: Tensor) -> Tensor:
    """Each negative times <positive, negative> / |negative|^2, normalised again."""
    possible = (positive > FLOOR)[:, None]
    own, others = _centred(positive[:, None], possible), _centred(negatives, possible)
    share = (own * others).sum(-1, keepdim=True) / _norm(others).square().clamp(min=1e-9)
    return torch.where(possible, log_probs((share * others).masked_fill(~possible, -math.inf)), negatives)


def _centred(x: Tensor, possible: Tensor) -> Tensor:
    """x minus its mean over the possible tokens; 0 at the others."""
    mean = x.masked_fill(~possible, 0).sum(-1, keepdim=True) / possible.sum(-1, keepdim=True)
    return (x - mean).masked_fill(~possible, 0)


def _norm(x: Tensor) -> Tensor:
    return x.square().sum(-1, keepdim=True).sqrt()

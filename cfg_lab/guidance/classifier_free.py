"""Classifier-free guidance, the rule the lab is built around."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.records import InputError


@dataclass(frozen=True, kw_only=True)
class ClassifierFreeGuidance:
    """Classifier-free guidance for language models (Sanchez et al. 2023, arXiv:2306.17806).

        guided = negative + scale * (positive - negative)

    on log-probs, normalised afterwards. With several weighted negatives

        guided = positive + (scale - 1) * sum_k w_k * (positive - negative_k)

    Two conventions of scale are in use. This one is Sanchez et al.'s and transformers': 1 is off, 0 is the
    negative branch, above 1 steers away from it. Texts from diffusion write positive + s * (positive -
    negative), where 0 is off: scale = 1 + s.

    Args:
        scale: finite; 1 is off.
        normalise_weights: divide weights by the sum of their sizes, so that scale keeps its meaning
            whatever they are; False takes them raw.
    """

    scale: float
    normalise_weights: bool = True

    def __post_init__(self) -> None:
        number = isinstance(self.scale, int | float) and not isinstance(self.scale, bool)
        if not number or not math.isfinite(self.scale):
            raise InputError(
                f"guidance.scale must be a finite number (1 is off, 1.5 a usual choice), got {self.scale!r}"
            )

    @property
    def needs_negatives(self) -> bool:
        return self.scale != 1

    def scale_at(self, step: int) -> float:
        return float(self.scale)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
        if self.normalise_weights:
            weights = weights / weights.abs().sum(1, keepdim=True)
        return torch.lerp(_away(positive, negatives, weights), positive, self.scale)


def _away(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """The distribution to steer away from, [rows, vocab]: the negatives' weighted sum. What the weights leave
    of 1 falls to the positive branch, where it cancels: so both formulas above are one."""
    if negatives.shape[1] == 1:
        return torch.lerp(positive, negatives[:, 0], weights)
    rest = 1 - weights.sum(1, keepdim=True)
    return torch.einsum("rk,rkv->rv", weights, negatives) + rest * positive

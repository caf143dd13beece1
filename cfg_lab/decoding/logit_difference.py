"""How much the logits of two forwards differ, and how much rounding explains."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

EXACT_TOLERANCE = 1e-3
"""Largest difference by rounding in float32. Right models differ by 1e-6, and packed weights by 1e-5."""

ROUGH_TOLERANCE = 0.1
"""Largest median difference by rounding in half precision. Right models differ by 0.02, wrong ones by 0.3."""


def tolerance(*, exact: bool) -> float:
    """The largest difference by rounding: of any logits in full precision, else of medians."""
    return EXACT_TOLERANCE if exact else ROUGH_TOLERANCE


def largest_difference(differences: Sequence[Sequence[float]], *, exact: bool) -> float:
    """The largest of some differences in full precision. Else the largest median of a list.

    In half precision, rounding can send a token to another expert, which changes the rest of its row a
    little.
    """
    return max(map(max if exact else statistics.median, differences))


def relative_difference(logits: Tensor, expected: Tensor) -> float:
    """Size of the difference of two rows of logits [vocab], relative to the spread of `expected`.

    A constant that is added to all logits makes no difference. Values that are not finite count as 0, so that
    NaN equals NaN: the decoder reports them.
    """
    expected = expected.double().nan_to_num(0, 0, 0)
    error, spread = logits.double().nan_to_num(0, 0, 0) - expected, expected - expected.mean()
    return _norm(error - error.mean()) / max(_norm(spread), 1e-12)


def _norm(row: Tensor) -> float:
    return float(cast("Tensor", torch.linalg.vector_norm(row)))

"""Laws of guidance rules."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfg_lab import ClassifierFreeGuidance
from cfg_lab.guidance import log_probs
from cfg_lab.records import InputError


def distributions(seed: int, rows: int, branches: int, masked: bool) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, branches + 1, 50, generator=generator) * 6
    if masked:
        logits[:, :, 40:] = -math.inf  # a padded vocabulary
        logits[0, 0, 3] = logits[0, -1, 4] = -math.inf  # and masks that differ
    found = log_probs(logits)
    return found[:, 0], found[:, 1:]


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    scale=st.floats(-5, 50),
    weights=st.lists(st.floats(0.1, 4) | st.floats(-4, -0.1), min_size=1, max_size=3),
    masked=st.booleans(),
    normalise=st.booleans(),
)
def test_always_a_distribution(
    seed: int, scale: float, weights: list[float], masked: bool, normalise: bool
) -> None:
    positive, negatives = distributions(seed, 3, len(weights), masked)
    rule = ClassifierFreeGuidance(scale=scale, normalise_weights=normalise)
    combined = log_probs(rule.combine(positive, negatives, torch.tensor([weights] * 3), torch.zeros(3)))
    assert not combined.isnan().any()
    assert combined.exp().sum(-1) == pytest.approx(torch.ones(3), abs=1e-4)
    if masked and (normalise or len(weights) == 1):
        assert (combined[:, 40:].exp() == 0).all()


def test_one_negative_is_the_papers_formula() -> None:
    positive, negatives = distributions(0, 4, 1, masked=False)
    combined = ClassifierFreeGuidance(scale=1.7).combine(
        positive, negatives, torch.full((4, 1), 0.3), torch.zeros(4)
    )
    expected = negatives[:, 0] + 1.7 * (positive - negatives[:, 0])
    assert torch.allclose(combined, expected, atol=1e-4)


@pytest.mark.parametrize("normalise", [True, False])
def test_several_negatives_are_the_sum_of_their_pushes(normalise: bool) -> None:
    positive, negatives = distributions(1, 4, 3, masked=False)
    raw = torch.tensor([[1.0, 0.5, -2.0]] * 4)
    weights = raw / 3.5 if normalise else raw
    rule = ClassifierFreeGuidance(scale=2.5, normalise_weights=normalise)
    expected = positive + 1.5 * (weights[..., None] * (positive[:, None] - negatives)).sum(1)
    assert torch.allclose(rule.combine(positive, negatives, raw, torch.zeros(4)), expected, atol=1e-3)


def test_scale_0_is_the_negative_and_scale_1_the_positive_to_the_last_bit() -> None:
    positive, negatives = distributions(2, 4, 1, masked=False)
    ones, steps = torch.ones(4, 1), torch.zeros(4)
    zero = ClassifierFreeGuidance(scale=0).combine(positive, negatives, ones, steps)
    assert torch.equal(zero, negatives[:, 0])
    assert not ClassifierFreeGuidance(scale=1).needs_negatives


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, "strong", None, True])
def test_bad_scales_are_named(scale: float) -> None:
    with pytest.raises(InputError, match=r"guidance\.scale must be a finite number .* got"):
        ClassifierFreeGuidance(scale=scale)

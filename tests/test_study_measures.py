"""Laws of what several studies compute: points on curves, nuclei and divergences of distributions."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from cfg_lab.analysis import summary
from cfg_lab.guidance.divergences import kl_divergence
from cfg_lab.guidance.log_probs import log_probs
from experiments.curves import at_divergence, divergence_at, interval, resampled_means, with_differences
from experiments.distribution.measure import between_branches, nucleus, of_guidance, renyi
from experiments.rules.strengths import sampled

GENERATOR = np.random.default_rng(0)


def scores(effect: float, prompts: int = 40) -> pd.DataFrame:
    """Two cells with two texts per prompt; the second cell's metric is higher by about `effect`."""
    rows = [
        {
            "cell": cell,
            "prompt_id": str(prompt),
            "prompt": f"prompt {prompt}",
            "sample": sample,
            "metric": GENERATOR.normal() + (effect if cell == "b" else 0),
        }
        for cell in "ab"
        for prompt in range(prompts)
        for sample in range(2)
    ]
    return pd.DataFrame(rows)


def test_the_first_row_is_the_data_and_intervals_hold_it() -> None:
    frame = scores(0)
    means = resampled_means(frame, ["metric"])["metric"]
    expected = summary(frame, ["metric"], []).set_index("cell")["metric"]
    for cell, values in means.items():
        estimate, low, high = interval(values)
        assert estimate == pytest.approx(expected[cell])
        assert low < estimate < high


def test_only_differences_that_survive_the_correction_are_bold() -> None:
    means = resampled_means(scores(1), ["metric"])["metric"]
    (large,) = with_differences([["name", means["b"] - means["a"], means["a"] - means["a"]]])
    assert large[0] == "name"
    assert large[1].startswith("**+")
    assert not large[2].startswith("**")


def test_a_curve_meets_its_own_cells_and_its_inverse_finds_them() -> None:
    divergence = np.array([[0.0, 0.25, 1.0]]).repeat(3, 0)
    metric = np.array([[0.1, 0.3, 0.4]]).repeat(3, 0)
    for point in range(3):
        level = divergence[0, point]
        np.testing.assert_allclose(at_divergence(divergence, metric, level), metric[:, point])
        np.testing.assert_allclose(divergence_at(divergence, metric, metric[0, point]), level, atol=1e-12)
    # Linear in the square root: halfway between the first two cells is a quarter of the divergence.
    np.testing.assert_allclose(at_divergence(divergence, metric, 0.0625), 0.2)
    np.testing.assert_allclose(divergence_at(divergence, metric, 0.2), 0.0625)
    assert np.isnan(at_divergence(divergence, metric, 1.1)).all()
    assert np.isnan(divergence_at(divergence, metric, 0.41)).all()


def distributions(rows: int = 5, vocab: int = 3000) -> tuple[Tensor, Tensor]:
    """Two log-probs [rows, vocab]. The second is uniform enough that its nucleus needs most tokens."""
    torch.manual_seed(0)
    return log_probs(3 * torch.randn(rows, vocab)), log_probs(0.1 * torch.randn(rows, vocab))


def test_a_nucleus_is_the_smallest_set_of_likeliest_tokens() -> None:
    for p in distributions():
        for row, mask in zip(p, nucleus(p), strict=True):
            probs = row.exp()
            assert probs[mask].min() >= probs[~mask].max()
            assert probs[mask].sum() >= 0.9
            assert probs[mask].sum() - probs[mask].min() < 0.9


def test_the_normaliser_of_guidance_is_a_renyi_divergence() -> None:
    p, n = distributions()
    tokens = [0] * len(p)
    plain = nucleus(p)
    for scale in (1.5, 2.0, 3.0):
        normaliser = of_guidance(p, n, scale, tokens, plain)["log_normaliser"]
        torch.testing.assert_close(normaliser, (scale - 1) * renyi(p, n, scale), rtol=1e-4, atol=1e-4)
    off = of_guidance(p, n, 1.0, tokens, plain)
    assert off["kl"].abs().max() < 1e-5
    assert (off["overlap"] == 1).all()
    assert torch.equal(off["rank_plain"], off["rank_guided"])


def test_renyi_divergences_grow_with_their_order() -> None:
    numbers = between_branches(*distributions())
    orders = ("renyi_half", "kl", "renyi_2", "renyi_3")
    for smaller, larger in itertools.pairwise(orders):
        assert (numbers[smaller] <= numbers[larger]).all()


def test_a_sampler_without_effect_draws_from_the_model() -> None:
    p, _ = distributions()
    torch.testing.assert_close(sampled(p, 1, 0), p)
    drawn = sampled(p, 0.7, 0.1)
    kept = drawn.exp() > 0
    tempered = (p / 0.7).softmax(-1)
    assert torch.equal(kept, tempered >= 0.1 * tempered.amax(-1, keepdim=True))
    assert (kl_divergence(drawn, p) > 0).all()

"""The choice of a scale on held-out items, in the study cost_matched."""

from __future__ import annotations

import numpy as np

from experiments.cost_matched.analyse import held_out


def test_a_scale_that_is_always_right_is_chosen() -> None:
    right = np.random.default_rng(0).integers(0, 2, (40, 5)).astype(float)
    right[:, 3] = 1
    answers, chosen = held_out(right)
    assert (answers == 1).all()
    assert chosen[3] == 1


def test_of_equal_scales_the_smallest_is_chosen() -> None:
    right = np.repeat(np.random.default_rng(0).integers(0, 2, (30, 1)), 4, axis=1).astype(float)
    answers, chosen = held_out(right)
    assert chosen.tolist() == [1, 0, 0, 0]
    np.testing.assert_allclose(answers, right[:, 0])


def test_held_out_items_do_not_flatter_noise() -> None:
    """If no scale is better than another, the best scale looks better, and the held-out choice does not."""
    best, other = [], []
    for seed in range(40):
        right = np.random.default_rng(seed).integers(0, 2, (60, 10)).astype(float)
        best.append(right.mean(0).max())
        other.append(held_out(right)[0].mean())
    assert np.mean(best) > 0.56
    assert abs(np.mean(other) - 0.5) < 3 * np.std(other) / len(other) ** 0.5

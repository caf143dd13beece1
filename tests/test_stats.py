"""Intervals and p values mean what they say."""

from __future__ import annotations

import math
import time
from dataclasses import astuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control, nct, permutation_test, t, ttest_1samp, ttest_rel

from cfg_lab.analysis.stats.estimates import (
    FAR,
    FEW,
    MANY,
    MANY_SIGNS,
    Difference,
    Estimate,
    holm,
    mean_interval,
    mean_intervals,
    paired_difference,
    paired_differences,
    power,
    prompts_needed,
)
from cfg_lab.analysis.stats.resampling import EXACT, SHIFTS, SIGNS, resamples, shifts, signs

PROMPTS, SAMPLES = 16, 2


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def within(rate: float, nominal: float, trials: int) -> bool:
    """As near to the nominal rate as all but one in 10,000 such simulations come."""
    low, high = binom.interval(0.9999, trials, nominal)
    return low / trials <= rate <= high / trials


def covered(intervals: list[Estimate] | list[Difference], truth: float) -> float:
    return float(np.mean([one.low <= truth <= one.high for one in intervals]))


class TestMeanInterval:
    @pytest.mark.parametrize("clusters", [2, 3, FEW - 1, MANY + 1])
    def test_of_very_few_or_very_many_it_is_students(self, clusters: int) -> None:
        values = normal(0, clusters) * 3 + 2
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        found = mean_interval(values.tolist(), range(clusters))
        assert (found.low, found.high, found.n) == (
            pytest.approx(expected.low),
            pytest.approx(expected.high),
            clusters,
        )

    @pytest.mark.parametrize("clusters", [60, 240])
    def test_of_normal_values_it_is_nearly_students(self, clusters: int) -> None:
        values = normal(1, clusters)
        values -= (values**3).mean() * (values**2 - 1) / 4  # takes the chance skewness out
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        found = mean_interval(values.tolist(), range(clusters))
        width = expected.high - expected.low
        assert found.low == pytest.approx(expected.low, abs=width / 20)
        assert found.high == pytest.approx(expected.high, abs=width / 20)

    def test_it_is_the_bootstrap_t_written_out(self) -> None:
        """One value a cluster: studentise every resample with its own standard error, one by one."""
        values = np.exp(normal(2, 12))
        values.sort()  # the order in which clusters are drawn
        mean, error = values.mean(), values.std(ddof=1) / math.sqrt(12)
        off: list[float] = []
        for drawn in resamples(12):
            resample = np.repeat(values, drawn.astype(int))
            off.append((resample.mean() - mean) / (resample.std(ddof=1) / math.sqrt(12)))
        ranked = sorted(off)
        found = mean_interval(values.tolist(), range(12))
        cut = 100  # (3999 + 1) * 2.5 %
        assert found.low == pytest.approx(mean - ranked[-cut] * error)
        assert found.high == pytest.approx(mean - ranked[cut - 1] * error)

    def test_the_interval_of_a_skewed_metric_reaches_further_towards_its_tail(self) -> None:
        values = np.exp(normal(3, 16))
        found = mean_interval(values.tolist(), range(16))
        assert found.high - found.mean > 1.3 * (found.mean - found.low)

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.floats(-1e3, 1e3)), min_size=1, max_size=40), st.randoms()
    )
    def test_the_order_and_the_names_of_prompts_change_nothing(self, texts: list, random) -> None:
        before = mean_interval([value for _, value in texts], [cluster for cluster, _ in texts])
        random.shuffle(texts)
        after = mean_interval([value for _, value in texts], [f"prompt {-c}" for c, _ in texts])
        scale = max(abs(value) for _, value in texts) + 1e-300
        assert after.n == before.n
        assert np.array(astuple(after)) == pytest.approx(
            np.array(astuple(before)), abs=1e-9 * scale, nan_ok=True
        )

    def test_another_unit_gives_the_same_interval_in_that_unit(self) -> None:
        values, prompts = normal(4, 32), np.repeat(range(16), 2).tolist()
        plain = mean_interval(values.tolist(), prompts)
        scaled = mean_interval((100 * values + 7).tolist(), prompts)
        for name in ("mean", "low", "high"):
            assert getattr(scaled, name) == pytest.approx(100 * getattr(plain, name) + 7)

    def test_copies_of_a_text_add_no_evidence(self) -> None:
        values = normal(5, 12)
        once = mean_interval(values.tolist(), range(12))
        thrice = mean_interval(np.repeat(values, 3).tolist(), np.repeat(range(12), 3).tolist())
        assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))
        assert thrice.n == 36

    def test_many_columns_at_once_are_each_as_alone(self) -> None:
        """Also with prompts that some columns lack."""
        values, prompts = normal(6, 48, 5), np.repeat(range(24), 2)
        values[normal(7, 48, 5) > 0.8] = np.nan
        values[prompts < 8, 3] = np.nan
        sums = np.array([np.nansum(values[prompts == p], axis=0) for p in range(24)])
        counts = np.array([(~np.isnan(values[prompts == p])).sum(0) for p in range(24)], float)
        for column, together in enumerate(mean_intervals(sums, counts)):
            alone = mean_interval(values[:, column].tolist(), prompts.tolist())
            assert astuple(together) == pytest.approx(astuple(alone))

    def test_unscored_values_are_left_out_and_not_counted(self) -> None:
        found = mean_interval([1.0, math.nan, 3.0], ["a", "b", "c"])
        assert (found.mean, found.n) == (2.0, 2)
        assert found.low == pytest.approx(2 - t.ppf(0.975, 1) * 1)

    def test_what_cannot_be_known_is_nan(self) -> None:
        assert str(mean_interval([], [])) == str(mean_interval([math.nan], ["a"])) == "nan [nan, nan], n=0"
        alone = mean_interval([5.0, 6.0], ["a", "a"])
        assert (alone.mean, alone.n) == (5.5, 2)
        assert math.isnan(alone.low)
        assert math.isnan(alone.high)

    def test_equal_values_have_an_interval_of_no_length(self) -> None:
        assert mean_interval([0.1] * 24, list(range(8)) * 3) == Estimate(
            pytest.approx(0.1), *[pytest.approx(0.1)] * 2, 24
        )

    def test_a_single_odd_value_does_not_make_an_endless_interval(self) -> None:
        """Most resamples without it have no variation at all."""
        found = mean_interval([0.0] * 15 + [1.0], range(16))
        assert found.low <= 0 < found.high < 1

    def test_lists_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            mean_interval([1.0], ["a", "b"])


class TestPairedDifference:
    @pytest.mark.parametrize("prompts", [2, MANY_SIGNS - 1, MANY + 1])
    def test_of_few_prompts_or_very_many_it_is_the_paired_t_test(self, prompts: int) -> None:
        values, baseline = normal(8, prompts) + 1, normal(9, prompts)
        found = paired_difference(values.tolist(), baseline.tolist(), range(prompts))
        expected = ttest_rel(values, baseline)
        assert found.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))

    @pytest.mark.parametrize("effect", [0.0, 0.5, 2.0, 9.0])
    @pytest.mark.parametrize("prompts", [MANY_SIGNS, 14])
    def test_p_is_the_sign_flip_tests(self, prompts: int, effect: float) -> None:
        """Against scipy's; means are in the order of t statistics, so theirs will do."""
        differences = np.exp(normal(28, prompts)) - np.exp(normal(29, prompts)) + effect
        every = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        found = paired_difference(differences.tolist(), [0.0] * prompts, range(prompts))
        assert found.p == pytest.approx(every.pvalue)

    @pytest.mark.parametrize("prompts", [MANY_SIGNS, 13, 16])
    @pytest.mark.parametrize("texts", [1, 3])
    def test_of_few_prompts_p_is_the_share_of_all_signs(self, prompts: int, texts: int) -> None:
        """Written out, with the t statistic of each; skewed, into the far tail, and with unequal texts."""
        every = 1.0 - 2 * np.array(list(np.ndindex(*[2] * prompts)))
        counts = np.random.default_rng(38).integers(1, texts + 1, (prompts, 8)).astype(float)
        sums = (np.exp(1.5 * normal(39, prompts, 8)) - 1 + np.linspace(0, 3, 8)) * counts
        found = paired_differences(sums, counts)
        for column, one in enumerate(found):
            n, signed = counts[:, column], every * sums[:, column]
            mean = signed.sum(1) / n.sum()
            t = np.abs(mean) / np.sqrt(((signed - mean[:, None] * n) ** 2).sum(1))
            assert one.p == pytest.approx((t >= t[0] * (1 - 1e-6)).mean())
        assert min(one.p for one in found) == 2 / 2**prompts

    def test_one_prompt_of_many_that_differs_the_other_way_leaves_little_chance(self) -> None:
        """Two of all signs for none, two for the one: no tail fitted to the rest would know."""
        differences = [-0.21, *np.geomspace(0.3, 28.5, 15).tolist()]
        found = paired_difference(differences, [0.0] * 16, range(16))
        assert found.p == 4 / 2**16
        assert holm([found.p] + [1.0] * 47)[0] < 0.05

    @pytest.mark.parametrize("ahead", [14, 17, 20, 31, 39])
    def test_of_many_prompts_p_is_near_a_closed_form(self, ahead: int) -> None:
        """Differences of one size: the sign test's, from 1 to far below what signs can tell."""
        differences = [1.0] * ahead + [-1.0] * (40 - ahead)
        expected = min(2 * binom.cdf(min(ahead, 40 - ahead), 40, 0.5), 1.0)
        found = paired_difference(differences, [0.0] * 40, range(40))
        number = SHIFTS * SIGNS if expected < FAR / SIGNS else SIGNS
        assert found.p >= 1 / number
        assert found.p == pytest.approx(expected, abs=4 * math.sqrt(expected / number) + 1 / number)

    @pytest.mark.parametrize("effect", [0.5, 0.6, 0.7, 2.0])
    def test_of_many_prompts_p_is_near_scipys(self, effect: float) -> None:
        differences = normal(30, 30) ** 3 / 3 + effect
        drawn = permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=400_000, batch=10_000, rng=31
        ).pvalue
        found = paired_difference(differences.tolist(), [0.0] * 30, range(30)).p
        assert found == pytest.approx(drawn, abs=4 * math.sqrt(drawn / SIGNS / SHIFTS) + 1 / SIGNS / SHIFTS)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.sampled_from([-1e3, -1.0, 0.0, 0.1, 0.2, 0.3, 1 + 1e-5, 1.0, 1e3]), min_size=12, max_size=40
        ),
        st.randoms(),
    )
    def test_p_is_what_some_signs_reach_whatever_the_order_of_prompts(self, values: list, random) -> None:
        """At least what was found does. Many of these sizes are equal, which leaves their order open."""
        before = paired_difference(values, [0.0] * len(values), range(len(values)))
        assert before.p >= 2 / 2 ** len(values)
        assert before.p >= 1 / (SIGNS * SHIFTS) or before.low == before.high
        mirrored = paired_difference([0.0] * len(values), values, range(len(values)))
        random.shuffle(values)
        after = paired_difference(values, [0.0] * len(values), [f"prompt {-i}" for i in range(len(values))])
        assert after.p == before.p == mirrored.p

    @pytest.mark.parametrize("prompts", [2, 5, MANY_SIGNS, 16, EXACT + 1, 30])
    def test_the_interval_leaves_out_zero_exactly_where_p_is_below_5_percent(self, prompts: int) -> None:
        sums = normal(prompts, prompts, 2000) + 2 / math.sqrt(prompts)  # half of them are significant
        for one in paired_differences(sums, np.ones_like(sums)):
            assert (one.p < 0.05) == (one.low > 0 or one.high < 0)

    def test_exchanged_sides_change_the_sign_alone(self) -> None:
        values, baseline, prompts = normal(10, 20), normal(11, 20), range(20)
        found = paired_difference(values.tolist(), baseline.tolist(), prompts)
        mirrored = paired_difference(baseline.tolist(), values.tolist(), prompts)
        assert mirrored.mean == pytest.approx(-found.mean)
        assert mirrored.effect == pytest.approx(-found.effect)
        assert (mirrored.low, mirrored.high) == (pytest.approx(-found.high), pytest.approx(-found.low))
        assert (mirrored.p, mirrored.needed) == (pytest.approx(found.p), found.needed)

    def test_what_the_two_sides_share_does_not_blur_the_difference(self) -> None:
        shared, noise, prompts = 100 * normal(12, 16), normal(13, 16), range(16)
        found = paired_difference((shared + noise).tolist(), shared.tolist(), prompts)
        alone = paired_difference(noise.tolist(), [0.0] * 16, prompts)
        assert astuple(found)[:3] == pytest.approx(astuple(alone)[:3])

    def test_the_effect_is_cohens_d_z_over_prompt_means_with_hedges_factor(self) -> None:
        differences = normal(14, 10, 3) + 0.5
        means = differences.mean(1)
        d_z = means.mean() / means.std(ddof=1)
        factor = math.gamma(9 / 2) / (math.sqrt(9 / 2) * math.gamma(8 / 2))
        found = paired_difference(differences.ravel().tolist(), [0.0] * 30, np.repeat(range(10), 3).tolist())
        assert found.effect == pytest.approx(factor * d_z)
        assert found.n == 30

    def test_hedges_factor_makes_the_effect_unbiased(self) -> None:
        sums = normal(15, 6, 4000) + 0.8
        effects = [one.effect for one in paired_differences(sums, np.ones_like(sums))]
        assert np.mean(effects) == pytest.approx(0.8, abs=4 * np.std(effects) / math.sqrt(4000))

    def test_a_pair_with_an_unscored_side_is_left_out(self) -> None:
        nan = math.nan
        found = paired_difference([1.0, nan, 3.0, 5.0], [0.0, 1.0, nan, 3.0], ["a", "b", "c", "d"])
        assert (found.mean, found.n) == (1.5, 2)

    def test_equal_texts_differ_by_nothing(self) -> None:
        found = paired_difference([0.3, 0.4] * 8, [0.3, 0.4] * 8, range(16))
        assert found == Difference(0, 0, 0, 16, 1, 0, math.inf)

    def test_where_all_prompts_differ_by_the_same_amount_p_is_the_sign_tests(self) -> None:
        found = paired_difference([0.3] * 8, [0.1] * 8, range(8))
        assert (found.mean, found.low, found.high) == (pytest.approx(0.2),) * 3
        assert found.p == pytest.approx(2 / 2**8)
        assert math.isnan(found.effect)
        assert math.isnan(found.needed)

    def test_of_one_prompt_or_none_nothing_is_known(self) -> None:
        one = paired_difference([2.0, 3.0], [1.0, 1.0], ["a", "a"])
        assert (one.mean, one.n) == (1.5, 2)
        none = paired_difference([], [], [])
        assert none.n == 0
        for unknown in [*astuple(one)[1:3], *astuple(one)[4:], *astuple(none)[:3], *astuple(none)[4:]]:
            assert math.isnan(unknown)


class TestSigns:
    @pytest.mark.parametrize("clusters", [12, 13, 40])
    def test_they_are_a_group_in_which_any_two_clusters_are_independent(self, clusters: int) -> None:
        """What makes the test exact: the product of two is one of them, and the plain sign is among them."""
        found = signs(clusters)
        members = {row.tobytes() for row in found}
        assert len(members) == SIGNS
        assert np.ones(clusters).tobytes() in members
        for one, other in np.random.default_rng(0).integers(0, SIGNS, (50, 2)):
            assert (found[one] * found[other]).tobytes() in members
        assert found.T @ found == pytest.approx(SIGNS * np.eye(clusters))
        assert found.sum(0) == pytest.approx(0)

    @pytest.mark.parametrize("clusters", [13, 15, EXACT, EXACT + 1])
    def test_shifted_they_are_all_there_are_up_to_the_opposite(self, clusters: int) -> None:
        words = (shifts(clusters)[:, None] * signs(clusters)).reshape(-1, clusters)
        assert len(words) == 2 ** (clusters - 1)
        assert len(np.unique(np.concatenate([words, -words]), axis=0)) == 2**clusters

    @pytest.mark.parametrize("clusters", [24, 64, MANY])
    def test_shifted_they_are_a_larger_group_without_opposites(self, clusters: int) -> None:
        first, by = signs(clusters), shifts(clusters)
        base = {row.tobytes() for row in first}
        members = {row.tobytes() for row in by}
        assert len(by) == len(members) == SHIFTS
        assert all((by[1] * row).tobytes() in members for row in by)
        assert sum(row.tobytes() in base for row in by) == 1  # so no word comes twice
        assert not any((-row).tobytes() in base for row in by)


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.9, 0.6]) == [1, 1]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_it_rejects_what_stepping_down_rejects(self, p_values: list[float]) -> None:
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - step) >= 0.05:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_it_lies_between_the_false_discovery_rates_and_bonferronis(self, p_values: list[float]) -> None:
        adjusted = np.array(holm(p_values))
        assert (adjusted <= np.minimum(np.array(p_values) * len(p_values), 1) + 1e-12).all()
        assert (adjusted >= false_discovery_control(p_values) - 1e-12).all()

    def test_what_is_unknown_does_not_count(self) -> None:
        found = holm([0.01, math.nan, 0.02])
        assert math.isnan(found[1])
        assert [found[0], found[2]] == pytest.approx([0.02, 0.02])


class TestPower:
    @pytest.mark.parametrize("effect", [0.05, 0.2, -0.35, 0.5, 0.8, 1.3, 3])
    def test_so_many_prompts_are_needed_and_no_fewer(self, effect: float) -> None:
        def exact(m: float) -> float:
            critical, shift = t.ppf(0.975, m - 1), effect * math.sqrt(m)
            return float(nct.sf(critical, m - 1, shift) + nct.cdf(-critical, m - 1, shift))

        needed = float(prompts_needed(np.array([effect]))[0])
        assert exact(needed) >= 0.8 - 1e-4
        assert exact(needed - 1) < 0.8
        assert power(np.array([effect]), np.array([needed]))[0] == pytest.approx(exact(needed))

    def test_no_effect_needs_more_than_there_are(self) -> None:
        assert prompts_needed(np.array([0, 1e9, math.nan])) == pytest.approx(
            [math.inf, 2, math.nan], nan_ok=True
        )

    def test_a_study_of_the_size_needed_finds_the_effect_four_times_in_five(self) -> None:
        sums = normal(16, int(prompts_needed(np.array([0.8]))[0]), 1000) + 0.8
        found = np.mean([one.p < 0.05 for one in paired_differences(sums, np.ones_like(sums))])
        assert within(float(found), 0.8, 1000)


# Synthetic sweeps: texts of one prompt are alike, cells share prompts and noise.

TRIALS = 2000


def sweeps(seed: int, kind: str) -> tuple[np.ndarray, float]:
    """[SAMPLES, PROMPTS, TRIALS] values of a metric, and its true mean."""
    prompt, text = normal(seed, 1, PROMPTS, TRIALS), normal(seed + 1, SAMPLES, PROMPTS, TRIALS)
    if kind == "normal":
        return prompt + 0.7 * text, 0
    if kind == "perplexity":  # log-normal, a coefficient of variation of 0.5
        return np.exp(1.5 + 0.35 * (prompt + text)), math.exp(1.5 + 0.35**2)
    latent = 2 + 1.5 * math.sqrt(0.5) * (prompt + text)  # sentiment: piles up below 1
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = float((weights / (1 + np.exp(-2 - 1.5 * nodes))).sum() / weights.sum())
    return 1 / (1 + np.exp(-latent)), truth


@pytest.mark.parametrize("kind", ["normal", "perplexity", "sentiment"])
def test_nominal_95_percent_covers_95_percent(kind: str) -> None:
    values, truth = sweeps(17, kind)
    found = mean_intervals(values.sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    assert 0.93 <= covered(found, truth) <= 0.97


def test_it_covers_where_prompts_have_unequal_numbers_of_texts() -> None:
    generator = np.random.default_rng(18)
    sizes = generator.integers(1, 5, (PROMPTS, TRIALS))
    present = np.arange(4)[:, None, None] < sizes
    values = normal(19, 1, PROMPTS, TRIALS) + 0.5 * normal(20, 4, PROMPTS, TRIALS)
    found = mean_intervals((values * present).sum(0), sizes.astype(float))
    assert 0.93 <= covered(found, 0) <= 0.97


def test_a_differences_interval_covers_where_guidance_makes_perplexity_higher() -> None:
    shared = 0.35 * normal(21, 1, PROMPTS, TRIALS)
    guided = np.exp(1.7 + shared + 0.4 * normal(22, SAMPLES, PROMPTS, TRIALS))
    plain = np.exp(1.5 + shared + 0.3 * normal(23, SAMPLES, PROMPTS, TRIALS))
    truth = math.exp(1.7 + (0.35**2 + 0.4**2) / 2) - math.exp(1.5 + (0.35**2 + 0.3**2) / 2)
    found = paired_differences((guided - plain).sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    assert 0.93 <= covered(found, truth) <= 0.97


@pytest.mark.parametrize("kind", ["normal", "perplexity", "sentiment"])
def test_without_an_effect_one_test_in_twenty_and_one_corrected_sweep_in_twenty_err(kind: str) -> None:
    """500 sweeps of a baseline and eight cells that differ from it by chance alone."""
    studies, cells = 500, 8
    shared = 0.35 * normal(24, 1, PROMPTS, studies, 1)
    values = shared + 0.5 * normal(25, SAMPLES, PROMPTS, studies, cells + 1)
    if kind == "perplexity":
        values = np.exp(1.5 + values)
    if kind == "sentiment":
        values = 1 / (1 + np.exp(-3 - 3 * values))
    differences = (values[..., 1:] - values[..., :1]).sum(0).reshape(PROMPTS, -1)
    found = paired_differences(differences, np.full(differences.shape, float(SAMPLES)))
    p = np.array([one.p for one in found]).reshape(studies, cells)
    # Cells of a sweep share their baseline, so only the sweeps are independent.
    assert within(float((p[:, 0] < 0.05).mean()), 0.05, studies)
    wrong = float(np.mean([min(holm(row)) < 0.05 for row in p.tolist()]))
    assert wrong <= 0.05 or within(wrong, 0.05, studies)


def test_a_metric_of_zeros_and_ones_errs_no_more_often_than_it_may() -> None:
    """t statistics of few values are equal in many ways, and ties must not count as significant."""
    rare = (normal(27, 2, SAMPLES, PROMPTS, TRIALS) > 1).astype(float)
    found = paired_differences((rare[0] - rare[1]).sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    wrong = float(np.mean([one.p < 0.05 for one in found]))
    assert wrong <= 0.05 or within(wrong, 0.05, TRIALS)


def test_a_sweep_of_500_cells_and_10_metrics_is_summed_up_in_seconds() -> None:
    sums = normal(26, 64, 5000)
    begin = time.perf_counter()
    mean_intervals(sums, np.full(sums.shape, 2.0))
    paired_differences(sums, np.full(sums.shape, 2.0))
    assert time.perf_counter() - begin < 60  # 5 s on one core; a loop over texts takes minutes


@pytest.mark.parametrize("prompts", [16, 24])
def test_small_p_values_are_as_rare_as_they_say(prompts: int) -> None:
    """Of skewed differences with random sides, where corrections for many tests look."""
    trials = 20_000
    sizes = np.exp(1.2 * normal(40, prompts, trials))
    sums = sizes * np.random.default_rng(41).choice([-1, 1], sizes.shape)
    p = np.array([one.p for one in paired_differences(sums, np.ones_like(sums))])
    for level in (0.05, 0.005, 0.001, 0.0002):
        assert within(float((p <= level).mean()), level, trials)

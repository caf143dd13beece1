"""Intervals cover the truth, and tests err, as often as they claim. Numbers agree with other code."""

from __future__ import annotations

import math
import time
from dataclasses import astuple, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, false_discovery_control, nct, permutation_test, t, ttest_1samp, ttest_rel

from cfg_lab.analysis.stats import (
    Difference,
    Estimate,
    holm,
    mean_interval,
    mean_intervals,
    paired_difference,
    paired_differences,
    prompts_needed,
    t_test_power,
)
from cfg_lab.analysis.stats.bootstrap import resample_counts
from cfg_lab.analysis.stats.intervals import MIN_PROMPTS_FOR_BOOTSTRAP
from cfg_lab.analysis.stats.sign_flips import (
    MAX_PROMPTS_FOR_ALL_SIGN_FLIPS,
    MIN_EXTREME_SIGN_FLIPS,
    MIN_PROMPTS_FOR_SIGN_FLIPS,
)
from cfg_lab.analysis.stats.sign_vectors import BASIC_SIZE, MAX_MULTIPLIERS, basic_signs, sign_multipliers
from cfg_lab.analysis.stats.student_t import MAX_PROMPTS_FOR_RESAMPLING

ENLARGED_SIZE = MAX_MULTIPLIERS * BASIC_SIZE

PROMPTS, SAMPLES = 16, 2


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 1, shape)


def within(rate: float, nominal: float, trials: int) -> bool:
    """Whether a rate is as near to the nominal rate as all but one in 10,000 such simulations come."""
    low, high = binom.interval(0.9999, trials, nominal)
    return low / trials <= rate <= high / trials


def highest_rate(nominal: float, trials: int) -> float:
    """A rate that only one in 20,000 such simulations exceeds, if the true rate is the nominal one."""
    return float(binom.ppf(0.99995, trials, nominal)) / trials


def coverage(intervals: list[Estimate] | list[Difference], truth: float) -> float:
    """The share of the intervals that contain the truth."""
    return float(np.mean([interval.low <= truth <= interval.high for interval in intervals]))


def example(prompts: int) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts [prompts, 1] of a skewed metric, with one to three texts per prompt."""
    numbers = np.arange(prompts)
    counts = 1.0 + numbers % 3
    sums = counts * (np.exp(np.sin(1 + numbers * numbers)) - 0.6)
    return sums[:, None], counts[:, None]


RECORDED = {
    4: [
        -1.3206762136550259,
        2.696463907457857,
        -1.3206762136550259,
        2.696463907457857,
        0.3554648057707803,
        53,
    ],
    8: [
        -0.3223191607517698,
        2.4435106182941224,
        -0.24227755585357302,
        1.4789589293098078,
        0.1331328359888322,
        30,
    ],
    12: [0.17519070279492477, 1.436415055810984, 0.17253510128073501, 1.5094569709125814, 0.01953125, 13],
    16: [
        0.37160138851797786,
        1.3611979109131722,
        0.39921789802461316,
        1.3996035127681803,
        0.002960205078125,
        10,
    ],
    17: [
        0.33120781165300506,
        1.2670538859042704,
        0.35833456453339235,
        1.327058888549265,
        0.0030059814453125,
        11,
    ],
    18: [
        0.40323123607191413,
        1.3086371079813883,
        0.4598537657733483,
        1.3661062613402442,
        0.00156402587890625,
        10,
    ],
    24: [
        0.43058611294169385,
        1.2656690207764394,
        0.48089833523533937,
        1.2825273780315982,
        0.000446319580078125,
        11,
    ],
    40: [
        0.5454139904882609,
        1.1092893721090655,
        0.5520814834713601,
        1.1227645997413662,
        1.52587890625e-05,
        11,
    ],
    1200: [
        0.6240938517432377,
        0.7270459397877986,
        0.6240938517432377,
        0.7270459397877986,
        9.7142813962663e-117,
        17,
    ],
}
"""By number of prompts: low and high of the mean, low and high of the difference, p, and prompts needed."""


@pytest.mark.parametrize("prompts", RECORDED)
def test_recorded_results_do_not_change(prompts: int) -> None:
    """There are several methods, and the number of prompts decides which of them applies."""
    sums, counts = example(prompts)
    (estimate,), (difference,) = mean_intervals(sums, counts), paired_differences(sums, counts)
    *interval, p, needed = RECORDED[prompts]
    assert [estimate.low, estimate.high, difference.low, difference.high] == pytest.approx(
        interval, rel=1e-12
    )
    assert difference.p == pytest.approx(p, rel=1e-12)
    assert difference.needed == needed


class TestMeanInterval:
    @pytest.mark.parametrize("prompts", [2, 3, MIN_PROMPTS_FOR_BOOTSTRAP - 1, MAX_PROMPTS_FOR_RESAMPLING + 1])
    def test_with_very_few_or_very_many_prompts_it_is_students_interval(self, prompts: int) -> None:
        values = normal(0, prompts) * 3 + 2
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        estimate = mean_interval(values.tolist(), range(prompts))
        assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))
        assert estimate.n == prompts

    @pytest.mark.parametrize("prompts", [60, 240])
    def test_of_normal_values_it_is_nearly_students_interval(self, prompts: int) -> None:
        values = normal(1, prompts)
        values -= (values**3).mean() * (values**2 - 1) / 4  # removes the skewness of this sample
        expected = ttest_1samp(values, 0).confidence_interval(0.95)
        estimate = mean_interval(values.tolist(), range(prompts))
        tolerance = (expected.high - expected.low) / 20
        assert estimate.low == pytest.approx(expected.low, abs=tolerance)
        assert estimate.high == pytest.approx(expected.high, abs=tolerance)

    def test_it_is_the_bootstrap_t_computed_step_by_step(self) -> None:
        """With one value per prompt, the t statistic of each resample uses the ordinary standard error."""
        values = np.exp(normal(2, 12))
        values.sort()  # prompts are sorted before they are drawn
        mean, error = values.mean(), values.std(ddof=1) / math.sqrt(12)
        t_statistics: list[float] = []
        for counts in resample_counts(12):
            resample = np.repeat(values, counts.astype(int))
            t_statistics.append((resample.mean() - mean) / (resample.std(ddof=1) / math.sqrt(12)))
        t_statistics.sort()
        estimate = mean_interval(values.tolist(), range(12))
        rank = 100  # 2.5 % of 3,999 + 1
        assert estimate.low == pytest.approx(mean - t_statistics[-rank] * error)
        assert estimate.high == pytest.approx(mean - t_statistics[rank - 1] * error)

    def test_the_interval_of_a_skewed_metric_is_longer_on_the_side_of_its_tail(self) -> None:
        values = np.exp(normal(3, 16))
        estimate = mean_interval(values.tolist(), range(16))
        assert estimate.high - estimate.mean > 1.3 * (estimate.mean - estimate.low)

    @settings(deadline=None, max_examples=40)
    @given(
        st.lists(st.tuples(st.integers(0, 9), st.floats(-1e3, 1e3)), min_size=1, max_size=40), st.randoms()
    )
    def test_the_order_and_the_names_of_prompts_change_nothing(self, texts: list, random) -> None:
        before = mean_interval([value for _, value in texts], [prompt for prompt, _ in texts])
        random.shuffle(texts)
        after = mean_interval([value for _, value in texts], [f"prompt {-prompt}" for prompt, _ in texts])
        scale = max(abs(value) for _, value in texts) + 1e-300
        assert after.n == before.n
        assert np.array(astuple(after)) == pytest.approx(
            np.array(astuple(before)), abs=1e-9 * scale, nan_ok=True
        )

    def test_another_unit_gives_the_same_interval_in_that_unit(self) -> None:
        values, prompts = normal(4, 32), np.repeat(range(16), 2).tolist()
        estimate = mean_interval(values.tolist(), prompts)
        converted = mean_interval((100 * values + 7).tolist(), prompts)
        for name in ("mean", "low", "high"):
            assert getattr(converted, name) == pytest.approx(100 * getattr(estimate, name) + 7)

    def test_copies_of_a_text_add_no_evidence(self) -> None:
        values = normal(5, 12)
        once = mean_interval(values.tolist(), range(12))
        thrice = mean_interval(np.repeat(values, 3).tolist(), np.repeat(range(12), 3).tolist())
        assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))
        assert thrice.n == 36

    def test_many_columns_at_once_give_the_same_as_each_column_alone(self) -> None:
        """Also if some columns lack some prompts."""
        values, prompts = normal(6, 48, 5), np.repeat(range(24), 2)
        values[normal(7, 48, 5) > 0.8] = np.nan
        values[prompts < 8, 3] = np.nan
        sums = np.array([np.nansum(values[prompts == p], axis=0) for p in range(24)])
        counts = np.array([(~np.isnan(values[prompts == p])).sum(0) for p in range(24)], float)
        for column, estimate in enumerate(mean_intervals(sums, counts)):
            alone = mean_interval(values[:, column].tolist(), prompts.tolist())
            assert astuple(estimate) == pytest.approx(astuple(alone))

    def test_unscored_values_are_left_out_and_not_counted(self) -> None:
        estimate = mean_interval([1.0, math.nan, 3.0], ["a", "b", "c"])
        assert (estimate.mean, estimate.n) == (2.0, 2)
        assert estimate.low == pytest.approx(2 - t.ppf(0.975, 1) * 1)

    def test_what_cannot_be_known_is_nan(self) -> None:
        assert str(mean_interval([], [])) == str(mean_interval([math.nan], ["a"])) == "nan [nan, nan], n=0"
        of_one_prompt = mean_interval([5.0, 6.0], ["a", "a"])
        assert (of_one_prompt.mean, of_one_prompt.n) == (5.5, 2)
        assert math.isnan(of_one_prompt.low)
        assert math.isnan(of_one_prompt.high)

    def test_equal_values_have_an_interval_of_no_length(self) -> None:
        estimate = mean_interval([0.1] * 24, list(range(8)) * 3)
        assert astuple(estimate) == pytest.approx((0.1, 0.1, 0.1, 24))
        assert estimate.low == estimate.mean == estimate.high

    def test_a_single_different_value_does_not_make_the_interval_infinite(self) -> None:
        """Resamples without it do not vary, so their t statistics would be infinite."""
        estimate = mean_interval([0.0] * 15 + [1.0], range(16))
        assert estimate.low <= 0 < estimate.high < 1

    def test_lists_of_different_lengths_are_refused(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            mean_interval([1.0], ["a", "b"])


class TestPairedDifference:
    @pytest.mark.parametrize("prompts", [2, MIN_PROMPTS_FOR_SIGN_FLIPS - 1, MAX_PROMPTS_FOR_RESAMPLING + 1])
    def test_with_few_or_very_many_prompts_it_is_the_paired_t_test(self, prompts: int) -> None:
        values, baseline = normal(8, prompts) + 1, normal(9, prompts)
        difference = paired_difference(values.tolist(), baseline.tolist(), range(prompts))
        expected = ttest_rel(values, baseline)
        assert difference.p == pytest.approx(expected.pvalue)
        interval = expected.confidence_interval(0.95)
        assert (difference.low, difference.high) == pytest.approx((interval.low, interval.high))

    @pytest.mark.parametrize("effect", [0.0, 0.5, 2.0, 9.0])
    @pytest.mark.parametrize("prompts", [MIN_PROMPTS_FOR_SIGN_FLIPS, 14])
    def test_p_agrees_with_scipys_sign_flip_test(self, prompts: int, effect: float) -> None:
        """Scipy uses means. Of sign flips, the order of |mean| is the order of |t|, so p is the same."""
        differences = np.exp(normal(28, prompts)) - np.exp(normal(29, prompts)) + effect
        expected = permutation_test((differences,), np.mean, permutation_type="samples", n_resamples=np.inf)
        difference = paired_difference(differences.tolist(), [0.0] * prompts, range(prompts))
        assert difference.p == pytest.approx(expected.pvalue)

    @pytest.mark.parametrize("prompts", [MIN_PROMPTS_FOR_SIGN_FLIPS, 13, 16])
    @pytest.mark.parametrize("texts", [1, 3])
    def test_up_to_17_prompts_p_is_the_share_of_all_sign_flips(self, prompts: int, texts: int) -> None:
        """Computed step by step, for skewed differences, down to the smallest p, also with unequal counts."""
        all_signs = 1.0 - 2 * np.array(list(np.ndindex(*[2] * prompts)))
        counts = np.random.default_rng(38).integers(1, texts + 1, (prompts, 8)).astype(float)
        sums = (np.exp(1.5 * normal(39, prompts, 8)) - 1 + np.linspace(0, 3, 8)) * counts
        differences = paired_differences(sums, counts)
        for column, difference in enumerate(differences):
            n, flipped = counts[:, column], all_signs * sums[:, column]
            mean = flipped.sum(1) / n.sum()
            t = np.abs(mean) / np.sqrt(((flipped - mean[:, None] * n) ** 2).sum(1))
            assert difference.p == pytest.approx((t >= t[0] * (1 - 1e-6)).mean())
        assert min(difference.p for difference in differences) == 2 / 2**prompts

    def test_if_one_small_difference_has_the_other_sign_p_counts_four_sign_flips(self) -> None:
        """As extreme as the data are the data, the same without that sign, and the opposites of both.

        A tail fitted to the other sign flips would give a p value that is 40 times too large.
        """
        differences = [-0.21, *np.geomspace(0.3, 28.5, 15).tolist()]
        difference = paired_difference(differences, [0.0] * 16, range(16))
        assert difference.p == 4 / 2**16
        assert holm([difference.p] + [1.0] * 47)[0] < 0.05

    @pytest.mark.parametrize("positive", [14, 17, 20, 31, 39])
    def test_with_many_prompts_p_is_near_that_of_the_sign_test(self, positive: int) -> None:
        """All differences have the same size. The sign test's p goes from 1 to far below 1 / 262,144."""
        differences = [1.0] * positive + [-1.0] * (40 - positive)
        expected = min(2 * binom.cdf(min(positive, 40 - positive), 40, 0.5), 1.0)
        p = paired_difference(differences, [0.0] * 40, range(40)).p
        flips = ENLARGED_SIZE if expected < MIN_EXTREME_SIGN_FLIPS / BASIC_SIZE else BASIC_SIZE
        assert p >= 1 / flips
        assert p == pytest.approx(expected, abs=4 * math.sqrt(expected / flips) + 1 / flips)

    @pytest.mark.parametrize("effect", [0.5, 0.6, 0.7, 2.0])
    def test_with_many_prompts_p_is_near_scipys(self, effect: float) -> None:
        differences = normal(30, 30) ** 3 / 3 + effect
        expected = permutation_test(
            (differences,), np.mean, permutation_type="samples", n_resamples=400_000, batch=10_000, rng=31
        ).pvalue
        p = paired_difference(differences.tolist(), [0.0] * 30, range(30)).p
        tolerance = 4 * math.sqrt(expected / ENLARGED_SIZE) + 1 / ENLARGED_SIZE
        assert p == pytest.approx(expected, abs=tolerance)

    @settings(deadline=None, max_examples=60)
    @given(
        st.lists(
            st.sampled_from([-1e3, -1.0, 0.0, 0.1, 0.2, 0.3, 1 + 1e-5, 1.0, 1e3]), min_size=12, max_size=40
        ),
        st.randoms(),
    )
    def test_p_is_a_share_of_sign_flips_and_does_not_depend_on_the_order(self, values: list, random) -> None:
        """The data themselves are one of the sign flips. Many of these values are tied in size."""
        before = paired_difference(values, [0.0] * len(values), range(len(values)))
        if before.low == before.high:  # equal values: the sign test
            assert before.p == (1 if before.mean == 0 else 2 / 2 ** len(values))
        else:
            assert before.p >= max(2 / 2 ** len(values), 1 / ENLARGED_SIZE)
        mirrored = paired_difference([0.0] * len(values), values, range(len(values)))
        random.shuffle(values)
        after = paired_difference(values, [0.0] * len(values), [f"prompt {-i}" for i in range(len(values))])
        assert after.p == before.p == mirrored.p

    @pytest.mark.parametrize(
        "prompts", [2, 5, MIN_PROMPTS_FOR_SIGN_FLIPS, 16, MAX_PROMPTS_FOR_ALL_SIGN_FLIPS + 1, 30]
    )
    def test_the_interval_excludes_0_exactly_if_p_is_below_5_percent(self, prompts: int) -> None:
        sums = normal(prompts, prompts, 2000) + 2 / math.sqrt(prompts)
        differences = paired_differences(sums, np.ones_like(sums))
        significant = [difference.p < 0.05 for difference in differences]
        assert [difference.low > 0 or difference.high < 0 for difference in differences] == significant
        assert 200 < sum(significant) < 1800

    def test_exchanging_values_and_baseline_changes_only_the_sign(self) -> None:
        values, baseline, prompts = normal(10, 20), normal(11, 20), range(20)
        difference = paired_difference(values.tolist(), baseline.tolist(), prompts)
        exchanged = paired_difference(baseline.tolist(), values.tolist(), prompts)
        assert exchanged.mean == pytest.approx(-difference.mean)
        assert exchanged.effect == pytest.approx(-difference.effect)
        assert (exchanged.low, exchanged.high) == pytest.approx((-difference.high, -difference.low))
        assert (exchanged.p, exchanged.needed) == (pytest.approx(difference.p), difference.needed)

    @pytest.mark.parametrize("prompts", [4, 8, 12, 18, 40, 1200])
    @pytest.mark.parametrize("copies", [2, 5])
    def test_copies_of_the_pairs_of_a_prompt_add_no_evidence(self, prompts: int, copies: int) -> None:
        """This is how the pairs of a prompt that is given several times are counted."""
        sums, counts = example(prompts)
        (once,), (several,) = (
            paired_differences(sums, counts),
            paired_differences(copies * sums, copies * counts),
        )
        assert several.n == copies * once.n
        assert astuple(replace(several, n=once.n)) == pytest.approx(astuple(once), rel=1e-9)

    def test_a_level_that_both_sides_share_cancels_out(self) -> None:
        shared, noise, prompts = 100 * normal(12, 16), normal(13, 16), range(16)
        difference = paired_difference((shared + noise).tolist(), shared.tolist(), prompts)
        of_noise = paired_difference(noise.tolist(), [0.0] * 16, prompts)
        assert astuple(difference)[:3] == pytest.approx(astuple(of_noise)[:3])

    def test_the_effect_is_cohens_d_z_of_prompt_means_with_hedges_correction(self) -> None:
        differences = normal(14, 10, 3) + 0.5
        means = differences.mean(1)
        d_z = means.mean() / means.std(ddof=1)
        factor = math.gamma(9 / 2) / (math.sqrt(9 / 2) * math.gamma(8 / 2))
        prompts = np.repeat(range(10), 3).tolist()
        difference = paired_difference(differences.ravel().tolist(), [0.0] * 30, prompts)
        assert difference.effect == pytest.approx(factor * d_z)
        assert difference.n == 30

    def test_hedges_correction_makes_the_effect_unbiased(self) -> None:
        sums = normal(15, 6, 4000) + 0.8
        effects = [difference.effect for difference in paired_differences(sums, np.ones_like(sums))]
        assert np.mean(effects) == pytest.approx(0.8, abs=4 * np.std(effects) / math.sqrt(4000))

    def test_a_pair_with_an_unscored_side_is_left_out(self) -> None:
        nan = math.nan
        difference = paired_difference([1.0, nan, 3.0, 5.0], [0.0, 1.0, nan, 3.0], ["a", "b", "c", "d"])
        assert (difference.mean, difference.n) == (1.5, 2)

    def test_equal_texts_have_a_difference_of_0(self) -> None:
        difference = paired_difference([0.3, 0.4] * 8, [0.3, 0.4] * 8, range(16))
        assert difference == Difference(mean=0, low=0, high=0, n=16, p=1, effect=0, needed=math.inf)

    def test_if_all_prompts_differ_by_the_same_amount_p_is_that_of_the_sign_test(self) -> None:
        difference = paired_difference([0.3] * 8, [0.1] * 8, range(8))
        assert (difference.mean, difference.low, difference.high) == (pytest.approx(0.2),) * 3
        assert difference.p == pytest.approx(2 / 2**8)
        assert math.isnan(difference.effect)
        assert math.isnan(difference.needed)

    def test_with_one_prompt_only_the_mean_is_known(self) -> None:
        difference = paired_difference([2.0, 3.0], [1.0, 1.0], ["a", "a"])
        assert (difference.mean, difference.n) == (1.5, 2)
        assert np.isnan(
            [value for name, value in vars(difference).items() if name not in {"mean", "n"}]
        ).all()

    def test_without_a_prompt_nothing_is_known(self) -> None:
        difference = paired_difference([], [], [])
        assert difference.n == 0
        assert np.isnan([value for name, value in vars(difference).items() if name != "n"]).all()


class TestSignVectors:
    @pytest.mark.parametrize("prompts", [12, 13, 40])
    def test_the_basic_set_is_a_group_in_which_any_two_prompts_are_independent(self, prompts: int) -> None:
        """A group makes the test exact: it contains all ones, and the product of any two vectors."""
        signs = basic_signs(prompts)
        members = {row.tobytes() for row in signs}
        assert len(members) == BASIC_SIZE
        assert np.ones(prompts).tobytes() in members
        for first, second in np.random.default_rng(0).integers(0, BASIC_SIZE, (50, 2)):
            assert (signs[first] * signs[second]).tobytes() in members
        assert signs.T @ signs == pytest.approx(BASIC_SIZE * np.eye(prompts))
        assert signs.sum(0) == pytest.approx(0)

    @pytest.mark.parametrize(
        "prompts",
        [
            13,
            15,
            MAX_PROMPTS_FOR_ALL_SIGN_FLIPS,
            MAX_PROMPTS_FOR_ALL_SIGN_FLIPS + 1,
            MAX_PROMPTS_FOR_ALL_SIGN_FLIPS + 2,
        ],
    )
    def test_up_to_19_prompts_the_enlarged_set_has_each_vector_or_its_opposite(self, prompts: int) -> None:
        signs = (sign_multipliers(prompts)[:, None] * basic_signs(prompts)).reshape(-1, prompts)
        numbers = (signs > 0) @ 2 ** np.arange(prompts)  # a vector as a whole number, one bit per sign
        opposites = 2**prompts - 1 - numbers
        assert len(signs) == 2 ** (prompts - 1)
        assert len(np.unique([numbers, opposites])) == 2**prompts

    @pytest.mark.parametrize("prompts", [24, 64, MAX_PROMPTS_FOR_RESAMPLING])
    def test_with_more_prompts_the_enlarged_set_is_a_group_without_opposites(self, prompts: int) -> None:
        multipliers = sign_multipliers(prompts)
        basic = {row.tobytes() for row in basic_signs(prompts)}
        members = {row.tobytes() for row in multipliers}
        assert len(multipliers) == len(members) == MAX_MULTIPLIERS
        assert all((multipliers[1] * row).tobytes() in members for row in multipliers)
        assert sum(row.tobytes() in basic for row in multipliers) == 1  # so no product occurs twice
        assert not any((-row).tobytes() in basic for row in multipliers)


class TestHolm:
    def test_by_hand(self) -> None:
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.9, 0.6]) == [1, 1]
        assert holm([]) == []

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_it_rejects_the_same_hypotheses_as_the_step_down_procedure(self, p_values: list[float]) -> None:
        rejected: set[int] = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
            if p_values[index] * (len(p_values) - step) >= 0.05:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(holm(p_values)) if p < 0.05} == rejected

    @given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
    def test_it_lies_between_the_false_discovery_rates_and_bonferronis(self, p_values: list[float]) -> None:
        corrected = np.array(holm(p_values))
        assert (corrected <= np.minimum(np.array(p_values) * len(p_values), 1) + 1e-12).all()
        assert (corrected >= false_discovery_control(p_values) - 1e-12).all()

    def test_nan_does_not_count_as_a_test(self) -> None:
        assert holm([0.01, math.nan, 0.02]) == pytest.approx([0.02, math.nan, 0.02], nan_ok=True)


class TestPower:
    @pytest.mark.parametrize("effect", [0.05, 0.2, -0.35, 0.5, 0.8, 1.3, 3])
    def test_it_is_the_smallest_number_of_prompts_with_80_percent_power(self, effect: float) -> None:
        def power(prompts: float) -> float:
            """By scipy's noncentral t distribution."""
            critical, noncentrality = t.ppf(0.975, prompts - 1), effect * math.sqrt(prompts)
            upper = nct.sf(critical, prompts - 1, noncentrality)
            return float(upper + nct.cdf(-critical, prompts - 1, noncentrality))

        needed = float(prompts_needed(np.array([effect]))[0])
        assert power(needed) >= 0.8 - 1e-4
        assert power(needed - 1) < 0.8
        assert t_test_power(np.array([effect]), np.array([needed]))[0] == pytest.approx(power(needed))

    def test_an_effect_of_0_needs_infinitely_many_prompts(self) -> None:
        assert prompts_needed(np.array([0, 1e9, math.nan])) == pytest.approx(
            [math.inf, 2, math.nan], nan_ok=True
        )

    def test_a_study_of_the_size_needed_finds_the_effect_four_times_in_five(self) -> None:
        sums = normal(16, int(prompts_needed(np.array([0.8]))[0]), 1000) + 0.8
        significant = [difference.p < 0.05 for difference in paired_differences(sums, np.ones_like(sums))]
        assert within(float(np.mean(significant)), 0.8, 1000)


# Synthetic sweeps: texts of one prompt resemble each other, and cells share prompts and noise.

TRIALS = 2000


def sweeps(seed: int, kind: str) -> tuple[np.ndarray, float]:
    """Values of a metric [SAMPLES, PROMPTS, TRIALS], and its true mean."""
    prompt, text = normal(seed, 1, PROMPTS, TRIALS), normal(seed + 1, SAMPLES, PROMPTS, TRIALS)
    if kind == "normal":
        return prompt + 0.7 * text, 0
    if kind == "perplexity":  # log-normal, a coefficient of variation of 0.5
        return np.exp(1.5 + 0.35 * (prompt + text)), math.exp(1.5 + 0.35**2)
    latent = 2 + 1.5 * math.sqrt(0.5) * (prompt + text)  # sentiment: many values near 1
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    truth = float((weights / (1 + np.exp(-2 - 1.5 * nodes))).sum() / weights.sum())
    return 1 / (1 + np.exp(-latent)), truth


@pytest.mark.parametrize("kind", ["normal", "perplexity", "sentiment"])
def test_95_percent_intervals_of_means_cover_the_truth_in_95_percent(kind: str) -> None:
    values, truth = sweeps(17, kind)
    intervals = mean_intervals(values.sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    assert 0.93 <= coverage(intervals, truth) <= 0.97


def test_intervals_cover_the_truth_if_prompts_have_unequal_numbers_of_texts() -> None:
    generator = np.random.default_rng(18)
    sizes = generator.integers(1, 5, (PROMPTS, TRIALS))
    present = np.arange(4)[:, None, None] < sizes
    values = normal(19, 1, PROMPTS, TRIALS) + 0.5 * normal(20, 4, PROMPTS, TRIALS)
    intervals = mean_intervals((values * present).sum(0), sizes.astype(float))
    assert 0.93 <= coverage(intervals, 0) <= 0.97


def test_intervals_of_differences_cover_the_truth_if_guidance_raises_perplexity() -> None:
    shared = 0.35 * normal(21, 1, PROMPTS, TRIALS)
    guided = np.exp(1.7 + shared + 0.4 * normal(22, SAMPLES, PROMPTS, TRIALS))
    unguided = np.exp(1.5 + shared + 0.3 * normal(23, SAMPLES, PROMPTS, TRIALS))
    truth = math.exp(1.7 + (0.35**2 + 0.4**2) / 2) - math.exp(1.5 + (0.35**2 + 0.3**2) / 2)
    intervals = paired_differences((guided - unguided).sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    assert 0.93 <= coverage(intervals, truth) <= 0.97


@pytest.mark.parametrize("kind", ["normal", "perplexity", "sentiment"])
def test_without_an_effect_5_percent_of_tests_and_at_most_5_percent_of_corrected_sweeps_err(
    kind: str,
) -> None:
    """500 sweeps of a baseline and eight cells that differ from it by chance alone."""
    studies, cells = 500, 8
    shared = 0.35 * normal(24, 1, PROMPTS, studies, 1)
    values = shared + 0.5 * normal(25, SAMPLES, PROMPTS, studies, cells + 1)
    if kind == "perplexity":
        values = np.exp(1.5 + values)
    if kind == "sentiment":
        values = 1 / (1 + np.exp(-3 - 3 * values))
    differences = (values[..., 1:] - values[..., :1]).sum(0).reshape(PROMPTS, -1)
    tested = paired_differences(differences, np.full(differences.shape, float(SAMPLES)))
    p = np.array([difference.p for difference in tested]).reshape(studies, cells)
    # Cells of a sweep share their baseline, so only the sweeps are independent.
    assert within(float((p[:, 0] < 0.05).mean()), 0.05, studies)
    wrong = float(np.mean([min(holm(row)) < 0.05 for row in p.tolist()]))
    assert wrong <= highest_rate(0.05, studies)


def test_a_metric_of_zeros_and_ones_errs_in_at_most_5_percent() -> None:
    """With few different values many t statistics are tied, and ties must not count as significant."""
    rare = (normal(27, 2, SAMPLES, PROMPTS, TRIALS) > 1).astype(float)
    tested = paired_differences((rare[0] - rare[1]).sum(0), np.full((PROMPTS, TRIALS), float(SAMPLES)))
    wrong = float(np.mean([difference.p < 0.05 for difference in tested]))
    assert 0 < wrong <= highest_rate(0.05, TRIALS)


def test_a_sweep_of_500_cells_and_10_metrics_takes_less_than_a_minute() -> None:
    sums = normal(26, 64, 5000)
    begin = time.process_time()  # seconds of this process, however busy the machine is
    mean_intervals(sums, np.full(sums.shape, 2.0))
    paired_differences(sums, np.full(sums.shape, 2.0))
    assert time.process_time() - begin < 60  # it takes 5 s on one core; a loop over texts takes minutes


@pytest.mark.parametrize("prompts", [16, 24])
def test_small_p_values_are_as_rare_as_they_claim(prompts: int) -> None:
    """With skewed differences of random sign. Corrections for many tests depend on small p values."""
    trials = 20_000
    sizes = np.exp(1.2 * normal(40, prompts, trials))
    sums = sizes * np.random.default_rng(41).choice([-1, 1], sizes.shape)
    p = np.array([difference.p for difference in paired_differences(sums, np.ones_like(sums))])
    for level in (0.05, 0.005, 0.001, 0.0002):
        assert within(float((p <= level).mean()), level, trials)

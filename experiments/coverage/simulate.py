"""How often intervals cover the truth, and how often tests err: `python experiments/coverage/simulate.py`.

Simulates thousands of sweeps whose true means are known, and prints the tables of the README.
It takes five minutes on one core. `--trials 200` gives rough numbers in seconds.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t

from cfg_lab.analysis.stats import holm, mean_intervals, paired_differences
from cfg_lab.analysis.stats.bootstrap import resample_counts
from cfg_lab.analysis.stats.clustered_means import Floats, clustered_means

SAMPLES = 2
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


def expectation(function: Callable[[Floats], Floats]) -> float:
    """The expected value of a function of a standard normal variable."""
    return float(function(NODES) @ WEIGHTS / WEIGHTS.sum())


@dataclass(frozen=True)
class Metric:
    """A metric that is a function of a standard normal variable.

    The variable is the sum of two independent effects, of the prompt and of the text.

    Attributes:
        transform: from the variable to the metric's value.
        prompt_variance: variance of the prompt's effect, in [0, 1]: the correlation between texts of one
            prompt.
        truth: the metric's true mean.
    """

    transform: Callable[[Floats], Floats]
    prompt_variance: float
    truth: float

    def values(self, prompt_effects: Floats, text_effects: Floats) -> Floats:
        """The metric's values, [SAMPLES, prompts, trials].

        Args:
            prompt_effects: standard normal, [1, prompts, trials].
            text_effects: standard normal, [SAMPLES, prompts, trials].
        """
        share = self.prompt_variance
        return self.transform(math.sqrt(share) * prompt_effects + math.sqrt(1 - share) * text_effects)


def log_normal(mean: float, deviation: float) -> Metric:
    """A skewed metric such as perplexity; mean and standard deviation are those of its logarithm."""
    return Metric(lambda z: np.exp(mean + deviation * z), 0.5, math.exp(mean + deviation**2 / 2))


def probability(mean: float, deviation: float) -> Metric:
    """A metric in [0, 1] such as sentiment; mean and standard deviation are those of its logit."""

    def logistic(z: Floats) -> Floats:
        return 1 / (1 + np.exp(-mean - deviation * z))

    return Metric(logistic, 0.5, expectation(logistic))


def event(rate: float) -> Metric:
    """A metric that is 1 with the probability `rate`, else 0."""
    return Metric(lambda z: (z < norm.ppf(rate)).astype(np.float64), 0.3, rate)


METRICS = {
    "normal": Metric(lambda z: z, 0.67, 0.0),
    "perplexity": log_normal(1.5, 0.5),
    "heavy perplexity": log_normal(1.5, 0.9),
    "sentiment": probability(2, 1.5),
    "0 or 1, 30 %": event(0.3),
    "0 or 1, 5 %": event(0.05),
}

CHANGES = {
    "perplexity, higher and more spread": (log_normal(1.7, 0.6), log_normal(1.5, 0.5)),
    "sentiment, higher": (probability(3, 1.5), probability(2, 1.5)),
    **{f"{name}, no effect": (metric, metric) for name, metric in METRICS.items()},
}
"""Metrics of a guided and an unguided cell: the same prompt effects, independent text effects."""


def random_effects(prompts: int, trials: int, cells: int) -> tuple[Floats, list[Floats]]:
    """Prompt effects, shared by all cells, and the text effects of each cell; see `Metric.values`."""
    generator = np.random.default_rng((prompts, cells))
    prompt_effects = generator.normal(0, 1, (1, prompts, trials))
    return prompt_effects, [generator.normal(0, 1, (SAMPLES, prompts, trials)) for _ in range(cells)]


def other_intervals(sums: Floats, counts: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Lower and upper ends of other 95 % intervals of means, each [trials], by the name of the method.

    The methods are the percentile bootstrap, the BCa bootstrap (Efron 1987), and Student's t with the
    cluster-robust standard error.

    Args:
        sums, counts: of each prompt's values, [prompts, trials].
    """
    means = clustered_means(sums, counts)
    prompts = sums.shape[0]
    margin = t.ppf(0.975, prompts - 1) * means.standard_error
    weights = resample_counts(prompts)
    resampled = np.sort(weights @ sums / (weights @ counts), axis=0)  # [RESAMPLES, trials]
    jackknife = (sums.sum(0) - sums) / (counts.sum(0) - counts)
    influence = jackknife.mean(0) - jackknife
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = np.nan_to_num((influence**3).sum(0) / (6 * (influence**2).sum(0) ** 1.5))
    share_below = ((resampled < means.mean).mean(0) + (resampled <= means.mean).mean(0)) / 2
    bias = norm.ppf(np.clip(share_below, 1e-3, 1 - 1e-3))
    bca: list[Floats] = []
    for quantile in (norm.ppf(0.025), norm.ppf(0.975)):
        share = norm.cdf(bias + (bias + quantile) / (1 - acceleration * (bias + quantile)))
        rank = np.clip((share * len(resampled)).astype(int), 0, len(resampled) - 1)
        bca.append(resampled[rank, np.arange(resampled.shape[1])])
    return {
        "percentile": (np.quantile(resampled, 0.025, axis=0), np.quantile(resampled, 0.975, axis=0)),
        "BCa": (bca[0], bca[1]),
        "Student": (means.mean - margin, means.mean + margin),
    }


def rate(outcomes: Floats, digits: int = 3) -> str:
    """The share of outcomes that are 1, with its 95 % interval, as text."""
    interval = binomtest(int(outcomes.sum()), len(outcomes)).proportion_ci(method="wilson")
    return f"{outcomes.mean():.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def covers(low: Floats, high: Floats, truth: float) -> Floats:
    """1 for each interval that contains the truth, else 0; [trials]."""
    return ((low <= truth) & (truth <= high)).astype(np.float64)


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table in Markdown."""
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def coverage_of_means(trials: int) -> None:
    """Print how often the intervals of means cover the truth."""
    print("### Means: share of 95 % intervals that cover the truth\n")
    rows: list[list[str]] = []
    for name, metric in METRICS.items():
        for prompts in (8, 16, 32, 64):
            prompt_effects, (text_effects,) = random_effects(prompts, trials, 1)
            sums = metric.values(prompt_effects, text_effects).sum(0)
            counts, truth = np.full((prompts, trials), float(SAMPLES)), metric.truth
            others = other_intervals(sums, counts)
            estimates = mean_intervals(sums, counts)
            low = np.array([estimate.low for estimate in estimates])
            high = np.array([estimate.high for estimate in estimates])
            width = float((high - low).mean() / (others["Student"][1] - others["Student"][0]).mean())
            rates = [f"{covers(*interval, truth).mean():.3f}" for interval in others.values()]
            rows.append([name, str(prompts), *rates, f"**{rate(covers(low, high, truth))}**", f"{width:.2f}"])
    print_table(["metric", "prompts", "percentile", "BCa", "Student", "ours", "width / Student's"], rows)


def coverage_of_differences(trials: int) -> None:
    """Print how often intervals of differences cover the truth, and how often tests are significant."""
    print("### Paired differences: coverage, and tests at 5 %\n")
    rows: list[list[str]] = []
    for name, (guided, unguided) in CHANGES.items():
        for prompts in (8, 16, 32):
            prompt_effects, text_effects = random_effects(prompts, trials, 2)
            guided_values = guided.values(prompt_effects, text_effects[0])
            sums = (guided_values - unguided.values(prompt_effects, text_effects[1])).sum(0)
            counts, truth = np.full((prompts, trials), float(SAMPLES)), guided.truth - unguided.truth
            student = other_intervals(sums, counts)["Student"]
            differences = paired_differences(sums, counts)
            low = np.array([difference.low for difference in differences])
            high = np.array([difference.high for difference in differences])
            significant = np.array([difference.p < 0.05 for difference in differences], np.float64)
            rows.append(
                [
                    name,
                    str(prompts),
                    f"{covers(*student, truth).mean():.3f}",
                    f"**{rate(covers(low, high, truth))}**",
                    f"{1 - covers(*student, 0.0).mean():.3f}",
                    rate(significant),
                ]
            )
    print_table(
        ["metric, effect", "prompts", "Student covers", "ours covers", "Student p < 0.05", "ours p < 0.05"],
        rows,
    )


def familywise(trials: int) -> None:
    """Print how many sweeps have a false alarm: a baseline and eight cells without an effect, two metrics."""
    print("### Without an effect: sweeps in which anything is called significant (16 tests each)\n")
    rows: list[list[str]] = []
    for first, second in (("normal", "sentiment"), ("perplexity", "heavy perplexity")):
        for prompts in (8, 16, 32):
            prompt_effects, text_effects = random_effects(prompts, trials, 9)
            sums = np.concatenate(
                [
                    (
                        metric.values(prompt_effects, cell_effects)
                        - metric.values(prompt_effects, text_effects[0])
                    ).sum(0)
                    for metric in (METRICS[first], METRICS[second])
                    for cell_effects in text_effects[1:]
                ],
                axis=1,
            )
            differences = paired_differences(sums, np.full(sums.shape, float(SAMPLES)))
            p = np.array([difference.p for difference in differences]).reshape(16, trials).T
            corrected = np.array([holm(row) for row in p.tolist()])
            rows.append(
                [
                    f"{first}, {second}",
                    str(prompts),
                    rate((p.min(1) < 0.05).astype(np.float64)),
                    f"**{rate((corrected.min(1) < 0.05).astype(np.float64))}**",
                ]
            )
    print_table(["metrics", "prompts", "uncorrected", "Holm"], rows)


def small_p_values(trials: int) -> None:
    """Print how rare small p values are if there is no effect.

    Differences are skewed and have random signs. Holm's correction runs over 48 tests whose differences
    correlate.
    """
    print("### Without an effect, skewed: how rare small p values are, and Holm over 48 tests\n")
    levels = (0.05, 0.005, 0.001, 0.0002)
    rows: list[list[str]] = []
    for prompts in (12, 16, 24, 48):
        generator = np.random.default_rng((prompts, 48))
        p: list[float] = []
        wrong: list[float] = []
        for _ in range(20):
            single = generator.normal(0, 1, (prompts, trials * 25 // 20))
            shared = 0.7 * generator.normal(0, 1, (prompts, trials // 20, 1))
            correlated = shared + 0.7 * generator.normal(0, 1, (prompts, trials // 20, 48))
            p += p_values(skewed(single))
            tests = np.reshape(p_values(skewed(correlated.reshape(prompts, -1))), (-1, 48))
            wrong += [float(min(holm(row)) < 0.05) for row in tests.tolist()]
        rates = [rate((np.array(p) <= level).astype(np.float64), 5) for level in levels]
        rows.append([str(prompts), *rates, f"**{rate(np.array(wrong))}**"])
    print_table(["prompts", *(f"p <= {level}" for level in levels), "Holm, 48 tests"], rows)


def skewed(z: Floats) -> Floats:
    """A skewed variable with the sign of z."""
    return np.sign(z) * np.expm1(1.5 * np.abs(z))


def p_values(differences: Floats) -> list[float]:
    """p value of each column of differences [prompts, tests], with one text per prompt."""
    return [difference.p for difference in paired_differences(differences, np.ones_like(differences))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000, help="simulated sweeps per row of a table")
    trials: int = parser.parse_args().trials
    coverage_of_means(trials)
    coverage_of_differences(trials)
    familywise(trials)
    small_p_values(trials)

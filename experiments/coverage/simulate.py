"""What intervals cover and how often tests err: `python experiments/coverage/simulate.py`.

Draws thousands of synthetic sweeps whose true means are known, and prints the README's tables.
Five minutes on one core; `--trials 200` for a look.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, norm, t

from cfg_lab.analysis.stats.estimates import holm, mean_intervals, paired_differences
from cfg_lab.analysis.stats.resampling import Floats, moments, resamples

SAMPLES = 2
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(120)


def expectation(function: Callable[[Floats], Floats]) -> float:
    """Of a function of a standard normal variable."""
    return float(function(NODES) @ WEIGHTS / WEIGHTS.sum())


@dataclass(frozen=True)
class Metric:
    """A function of a standard normal variable, of which the prompt makes up a part.

    Attributes:
        of: from that variable to the metric's value.
        shared: the prompt's share of the variance; texts of one prompt are alike by that much.
        truth: the metric's true mean.
    """

    of: Callable[[Floats], Floats]
    shared: float
    truth: float

    def values(self, prompt: Floats, text: Floats) -> Floats:
        """From the prompts' part [1, prompts, trials] and the texts' own [SAMPLES, prompts, trials]."""
        return self.of(math.sqrt(self.shared) * prompt + math.sqrt(1 - self.shared) * text)


def log_normal(mean: float, spread: float) -> Metric:
    return Metric(lambda z: np.exp(mean + spread * z), 0.5, math.exp(mean + spread**2 / 2))


def probability(mean: float, spread: float) -> Metric:
    def of(z: Floats) -> Floats:
        return 1 / (1 + np.exp(-mean - spread * z))

    return Metric(of, 0.5, expectation(of))


def event(rate: float) -> Metric:
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
"""Guided and plain; the prompt's part is the same in both, the texts' own parts are independent."""


def drawn(prompts: int, trials: int, cells: int) -> tuple[Floats, list[Floats]]:
    """The prompts' part, and the texts' own in each of the cells."""
    generator = np.random.default_rng((prompts, cells))
    shared = generator.normal(0, 1, (1, prompts, trials))
    return shared, [generator.normal(0, 1, (SAMPLES, prompts, trials)) for _ in range(cells)]


def constructions(sums: Floats, counts: Floats) -> dict[str, tuple[Floats, Floats]]:
    """Other intervals of means, [trials]: Student's on the cluster-robust error, percentile, BCa."""
    found = moments(sums, counts)
    prompts = sums.shape[0]
    reach = t.ppf(0.975, prompts - 1) * found.error
    drawn = np.sort(resamples(prompts) @ sums / (resamples(prompts) @ counts), axis=0)  # [RESAMPLES, trials]
    jackknife = (sums.sum(0) - sums) / (counts.sum(0) - counts)
    pull = jackknife.mean(0) - jackknife
    with np.errstate(divide="ignore", invalid="ignore"):
        acceleration = np.nan_to_num((pull**3).sum(0) / (6 * (pull**2).sum(0) ** 1.5))
    below = ((drawn < found.mean).mean(0) + (drawn <= found.mean).mean(0)) / 2
    bias = norm.ppf(np.clip(below, 1e-3, 1 - 1e-3))
    ends: list[Floats] = []
    for side in (norm.ppf(0.025), norm.ppf(0.975)):
        share = norm.cdf(bias + (bias + side) / (1 - acceleration * (bias + side)))
        place = np.clip((share * len(drawn)).astype(int), 0, len(drawn) - 1)
        ends.append(drawn[place, np.arange(drawn.shape[1])])
    return {
        "percentile": (np.quantile(drawn, 0.025, axis=0), np.quantile(drawn, 0.975, axis=0)),
        "BCa": (ends[0], ends[1]),
        "Student": (found.mean - reach, found.mean + reach),
    }


def rate(hits: Floats, digits: int = 3) -> str:
    """A share with its 95 % interval."""
    interval = binomtest(int(hits.sum()), len(hits)).proportion_ci(method="wilson")
    return f"{hits.mean():.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"


def inside(low: Floats, high: Floats, truth: float) -> Floats:
    return ((low <= truth) & (truth <= high)).astype(np.float64)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def coverage_of_means(trials: int) -> None:
    print("### Means: share of 95 % intervals that cover the truth\n")
    rows: list[list[str]] = []
    for name, metric in METRICS.items():
        for prompts in (8, 16, 32, 64):
            shared, (own,) = drawn(prompts, trials, 1)
            sums, counts = metric.values(shared, own).sum(0), np.full((prompts, trials), float(SAMPLES))
            truth = metric.truth
            others = constructions(sums, counts)
            ours = mean_intervals(sums, counts)
            low, high = np.array([one.low for one in ours]), np.array([one.high for one in ours])
            width = float((high - low).mean() / (others["Student"][1] - others["Student"][0]).mean())
            shown = [f"{inside(*ends, truth).mean():.3f}" for ends in others.values()]
            rows.append([name, str(prompts), *shown, f"**{rate(inside(low, high, truth))}**", f"{width:.2f}"])
    table(["metric", "prompts", "percentile", "BCa", "Student", "ours", "width / Student's"], rows)


def coverage_of_differences(trials: int) -> None:
    print("### Paired differences: coverage, and tests at 5 %\n")
    rows: list[list[str]] = []
    for name, (guided, plain) in CHANGES.items():
        for prompts in (8, 16, 32):
            shared, (own, other) = drawn(prompts, trials, 2)
            sums = (guided.values(shared, own) - plain.values(shared, other)).sum(0)
            counts, truth = np.full((prompts, trials), float(SAMPLES)), guided.truth - plain.truth
            student = constructions(sums, counts)["Student"]
            ours = paired_differences(sums, counts)
            low, high = np.array([one.low for one in ours]), np.array([one.high for one in ours])
            found = np.array([one.p < 0.05 for one in ours], np.float64)
            rows.append(
                [
                    name,
                    str(prompts),
                    f"{inside(*student, truth).mean():.3f}",
                    f"**{rate(inside(low, high, truth))}**",
                    f"{1 - inside(*student, 0.0).mean():.3f}",
                    rate(found),
                ]
            )
    table(
        ["metric, effect", "prompts", "Student covers", "ours covers", "Student p < 0.05", "ours p < 0.05"],
        rows,
    )


def familywise(trials: int) -> None:
    """Sweeps of a baseline and eight cells without an effect, two metrics: a false alarm anywhere?"""
    print("### Without an effect: sweeps in which anything is called significant (16 tests each)\n")
    rows: list[list[str]] = []
    for first, second in (("normal", "sentiment"), ("perplexity", "heavy perplexity")):
        for prompts in (8, 16, 32):
            shared, own = drawn(prompts, trials, 9)
            sums = np.concatenate(
                [
                    (METRICS[metric].values(shared, cell) - METRICS[metric].values(shared, own[0])).sum(0)
                    for metric in (first, second)
                    for cell in own[1:]
                ],
                axis=1,
            )
            ours = paired_differences(sums, np.full(sums.shape, float(SAMPLES)))
            p = np.array([one.p for one in ours]).reshape(16, trials).T
            adjusted = np.array([holm(row) for row in p.tolist()])
            rows.append(
                [
                    f"{first}, {second}",
                    str(prompts),
                    rate((p.min(1) < 0.05).astype(np.float64)),
                    f"**{rate((adjusted.min(1) < 0.05).astype(np.float64))}**",
                ]
            )
    table(["metrics", "prompts", "uncorrected", "Holm"], rows)


def far_tail(trials: int) -> None:
    """Differences of skewed sizes and random sides, alone and 48 that share a part in every prompt."""
    print("### Without an effect, skewed: how rare small p values are, and Holm over 48 tests\n")
    levels = (0.05, 0.005, 0.001, 0.0002)
    rows: list[list[str]] = []
    for prompts in (12, 16, 24, 48):
        generator = np.random.default_rng((prompts, 48))
        p: list[float] = []
        wrong: list[float] = []
        for _ in range(20):
            alone = generator.normal(0, 1, (prompts, trials * 25 // 20))
            together = 0.7 * generator.normal(0, 1, (prompts, trials // 20, 1))
            together = together + 0.7 * generator.normal(0, 1, (prompts, trials // 20, 48))
            p += p_values(skewed(alone))
            tests = np.reshape(p_values(skewed(together.reshape(prompts, -1))), (-1, 48))
            wrong += [float(min(holm(row)) < 0.05) for row in tests.tolist()]
        rare = [rate((np.array(p) <= level).astype(np.float64), 5) for level in levels]
        rows.append([str(prompts), *rare, f"**{rate(np.array(wrong))}**"])
    table(["prompts", *(f"p <= {level}" for level in levels), "Holm, 48 tests"], rows)


def skewed(z: Floats) -> Floats:
    return np.sign(z) * np.expm1(1.5 * np.abs(z))


def p_values(differences: Floats) -> list[float]:
    return [one.p for one in paired_differences(differences, np.ones_like(differences))]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=4000, help="synthetic sweeps a row")
    trials: int = parser.parse_args().trials
    coverage_of_means(trials)
    coverage_of_differences(trials)
    familywise(trials)
    far_tail(trials)

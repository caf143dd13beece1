"""The conclusion of a study in one or two sentences of plain text: what guidance did to its first aim.

An aim is a metric that guidance is meant to improve. A price is a metric that guidance can make worse.
"""

from __future__ import annotations

import math

from cfg_lab import analysis
from cfg_lab.report.change import Change
from cfg_lab.report.findings import Finding
from cfg_lab.report.scope import Scope
from cfg_lab.report.sentences import MOST_PROMPTS, without_baseline
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits


def conclusion(finding: Finding, scope: Scope) -> str:
    """Say whether guidance improved an aim, by how much, how certain that is, and at what price.

    The best guided cell is compared with its baseline, as in the finding.
    """
    metric, change = finding.metric, finding.change
    if finding.best is None:
        return f"Unknown: no text has a score of {metric}."
    if change is None:
        mean = f"{metric} is {three_digits(finding.best_mean)}"
        if len(scope.labels) == 1:
            return f"{mean} in the only cell. There is nothing to compare it with."
        return f"Unknown: {without_baseline(scope)}"
    among = f", the best of {finding.guided} guided cells" if finding.guided > 1 else ""
    guided = f"with guidance ({scope.labels[change.cell]}{among})"
    better, worse = ("higher", "lower") if analysis.better(metric) == "higher" else ("lower", "higher")
    direction = better if change.is_improvement else worse
    prompts = count(scope.prompts, "prompt")
    differs = f"{metric} is {direction} {guided} than without: {_estimate(change)}, on {prompts}"
    corrected = f"{p_value(change.p_holm)} after correction"
    if change.difference == 0:
        return f"No: {metric} is the same {guided} as without, on {prompts}."
    match change.verdict:
        case "better" | "different":
            sentence = f"Yes: {differs}, {corrected}."
        case "worse":
            sentence = f"No: {differs}, {corrected}."
        case "lead":
            sentence = (
                f"Not certain: {differs}, {p_value(change.p)} before and {p_value(change.p_holm)} after "
                f"correction over {count(scope.comparisons, 'comparison')}.{_prompts_needed(change)}"
            )
        case "not_significant":
            sentence = f"Not shown: {differs}, {corrected}.{_prompts_needed(change)}"
        case "unknown":
            return f"Unknown: {differs}, and its p value is unknown."
    return sentence + _price(finding)


def _estimate(change: Change) -> str:
    """Return a difference with its interval: "+0.1, 95 % interval [0.02, 0.18]"."""
    return f"{signed(change.difference)}, 95 % interval {interval(change.low, change.high)}"


def _price(finding: Finding) -> str:
    """Name what the best guided cell costs: prices that are significantly worse, and computation."""
    worse = [change for change in finding.prices if change.verdict == "worse"]
    items = [
        f"{change.metric} {signed(change.difference)} {interval(change.low, change.high)}" for change in worse
    ]
    if math.isfinite(finding.compute):
        items.append(f"{finding.compute:.3g} times the operations")
    if not items:
        return ""
    unharmed = joined((change.metric for change in finding.prices), "or")
    loss = f"; no significant loss in {unharmed}" if finding.prices and not worse else ""
    return f" Price: {joined(items)}{loss}."


def _prompts_needed(change: Change) -> str:
    """Say how many prompts would settle the question; "" if the number is unknown or above MOST_PROMPTS."""
    if not math.isfinite(change.needed) or change.needed > MOST_PROMPTS:
        return ""
    prompts = count(math.ceil(change.needed), "prompt")
    return f" About {prompts} would detect a difference of this size with 80 % power."

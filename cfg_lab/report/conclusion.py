"""The conclusion of a study in up to three lines of plain text: what guidance did to its first aim.

An aim is a metric that guidance is meant to improve. A price is a metric that guidance can make worse.
"""

from __future__ import annotations

import math

from cfg_lab import analysis
from cfg_lab.metrics.known_columns import bounds
from cfg_lab.report.change import Change
from cfg_lab.report.findings import Finding
from cfg_lab.report.scope import Scope
from cfg_lab.report.sentences import MOST_PROMPTS, without_baseline
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits


def conclusion(finding: Finding, scope: Scope) -> tuple[str, ...]:
    """Say whether guidance improved an aim, by how much, how certain that is, and at what price.

    Returns:
        One to three lines. The first compares the best guided cell with its baseline, as in the finding. The
        second compares it with a cell that has another negative, and the third names the price.
    """
    lines = [_result(finding, scope)]
    if finding.change is not None and math.isfinite(finding.change.p_holm):
        lines += [_other_negative(finding), _price(finding)]
    return tuple(filter(None, lines))


def _result(finding: Finding, scope: Scope) -> str:
    """Compare the best guided cell with its baseline, in a sentence or two."""
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
    prompts = count(scope.prompts, "prompt")
    if not math.isfinite(change.difference):
        return f"Unknown: no text {guided} has a counterpart without guidance."
    if change.difference == 0:
        return f"No: {metric} is the same {guided} as without, on {prompts}."
    direction = "higher" if change.difference > 0 else "lower"
    by, span = signed(change.difference), f"95 % interval {interval(change.low, change.high)}"
    differs = f"{metric} is {direction} {guided} than without: {by}, {span}, on {prompts}"
    corrected = f"{p_value(change.p_holm)} after correction"
    match change.verdict:
        case "better" | "different":
            return f"Yes: {differs}, {corrected}."
        case "worse":
            return f"No: {differs}, {corrected}."
        case "lead":
            return (
                f"Not certain: {differs}, {p_value(change.p)} before and {p_value(change.p_holm)} after "
                f"correction over {count(scope.comparisons, 'comparison')}.{_prompts_needed(change)}"
            )
        case "not_significant":
            return (
                f"Not shown: {metric} changes by {by} {guided}, {span}, on {prompts}, {corrected}."
                f"{_largest_gain(change)}"
            )
        case "unknown":
            return f"Unknown: {differs}, and its p value is unknown."


def _largest_gain(change: Change) -> str:
    """Say which possible gain the interval excludes; "" if it excludes none, or if there is no interval."""
    least, greatest = bounds(change.metric)
    if analysis.better(change.metric) == "higher":
        gain, possible = change.high, greatest - change.baseline_mean
    else:
        gain, possible = -change.low, change.baseline_mean - least
    return f" A gain above {three_digits(gain)} is unlikely." if 0 < gain < possible else ""


def _other_negative(finding: Finding) -> str:
    """Compare the best guided cell with its only neighbour, such as the same scale with another negative.

    Return "" if there is no neighbour or more than one, or if the difference is not significant.
    """
    if len(finding.neighbours) != 1 or finding.neighbours[0].change.verdict not in ("better", "worse"):
        return ""
    (neighbour,) = finding.neighbours
    change = neighbour.change
    return (
        f"Compared with {neighbour.setting} {neighbour.value}, all else equal: "
        f"{signed(change.difference)} {interval(change.low, change.high)}, {p_value(change.p_holm)}."
    )


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
    return f"Price: {joined(items)}{loss}."


def _prompts_needed(change: Change) -> str:
    """Say how many prompts would settle the question; "" if the number is unknown or above MOST_PROMPTS."""
    if not math.isfinite(change.needed) or change.needed > MOST_PROMPTS:
        return ""
    prompts = count(math.ceil(change.needed), "prompt")
    return f" About {prompts} would detect a difference of this size with 80 % power."

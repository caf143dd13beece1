"""Writes the findings of a study as sentences and lists.

All returned text is safe HTML; <b> marks the most important words. An aim is a metric that guidance is
meant to improve. A price is a metric that guidance can make worse.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from html import escape

from cfg_lab import analysis
from cfg_lab.metrics.known_columns import column_info
from cfg_lab.report.change import Change
from cfg_lab.report.findings import Finding, Neighbour
from cfg_lab.report.scope import Scope
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits

NEIGHBOURS_SHOWN = 4
CELLS_NAMED = 3
MOST_PROMPTS = 1e6  # a larger number of needed prompts is not printed


def headline(finding: Finding, scope: Scope) -> str:
    """Say which cell has a metric's best mean, by how much, and whether the difference is significant."""
    metric, change = escape(finding.metric), finding.change
    superlative = "highest" if analysis.better(finding.metric) == "higher" else "lowest"
    if finding.best is None:
        return f"No text has a score of {metric}. Nothing can be said about it."
    if change is None:
        if len(scope.labels) == 1:
            return (
                f"{metric} is <b>{three_digits(finding.best_mean)}</b> in the only cell. There is nothing to "
                "compare it with."
            )
        return (
            f"{scope.label(finding.best)} has the {superlative} {metric}: "
            f"<b>{three_digits(finding.best_mean)}</b>. "
            f"The effect of guidance is unknown: {escape(without_baseline(scope))}"
        )
    if not finding.guidance_is_best:
        return _unguided_is_best(finding, change, scope, superlative)
    means = f"{three_digits(change.mean)}, against {three_digits(change.baseline_mean)} without guidance"
    if change.verdict == "not_significant":
        return (
            f"<b>{_not_detected(metric, scope)}</b> The {superlative} mean is that of "
            f"{scope.label(change.cell)}: {means}. {_difference(change)} {_significance(change, scope)}"
        )
    return (
        f"{scope.label(change.cell)} has the {superlative} {metric}: {means}. "
        f"{_difference(change)} {_significance(change, scope)}"
    )


def without_baseline(scope: Scope) -> str:
    """Say in plain text why no guided cell is compared with decoding without guidance."""
    if not scope.unguided:
        return "no cell runs without guidance. Add guidance.scale=1 to the sweep."
    if scope.unguided == len(scope.labels):
        return "no cell is guided."
    return "no guided cell has an unguided cell whose other settings are the same."


def spread(finding: Finding, scope: Scope) -> str:
    """Say how many guided cells are significantly better or worse than their baselines.

    If the best cell has the largest or smallest scale that was tried, say that too.
    """
    if finding.guided < 2:
        return ""
    better, worse = len(finding.better), len(finding.worse)
    neither = finding.guided - better - worse
    metric = escape(finding.metric)
    edge = ""
    if finding.edge and finding.guidance_is_best:
        beyond = {"largest": "larger", "smallest": "smaller"}[finding.edge]
        edge = f" The best cell has the {finding.edge} scale tried. No {beyond} scale was tried."
    if not better and not worse:
        return f"No guided cell differs significantly from its baseline in {metric}.{edge}"
    worse_cells = _names(finding.worse, scope) if worse else ""
    counts = [
        f"significantly better in {better}" if better else "",
        f"significantly worse in {worse}{worse_cells}" if worse else "",
        f"not significantly different in {neither}" if neither else "",
    ]
    return (
        f"Compared with decoding without guidance, {metric} is {joined(filter(None, counts))} of "
        f"{finding.guided} guided cells.{edge}"
    )


def neighbours(finding: Finding, scope: Scope) -> str:
    """Compare the best guided cell with its neighbours.

    A neighbour differs from the best guided cell in exactly one setting, which is not the scale.
    """
    sentences = [_neighbour(neighbour, scope) for neighbour in finding.neighbours[:NEIGHBOURS_SHOWN]]
    further = len(finding.neighbours) - len(sentences)
    if further:
        differ = "differs" if further == 1 else "differ"
        sentences.append(
            f"{count(further, 'further cell')} {differ} in one setting. The table of cells shows them all."
        )
    return " ".join(sentences)


def prices(finding: Finding, scope: Scope) -> list[str]:
    """List how the best guided cell differs from its baseline: in computation, then in each price.

    A price is a metric that guidance can make worse. Significant changes come first. Then come leads, which
    are significant before correction but not after it. Prices without a detected difference come last.
    """
    if not finding.prices or finding.change is None:
        return []
    leads = [change for change in finding.prices if change.verdict == "lead"]
    groups = {
        "Significantly worse": [change for change in finding.prices if change.verdict == "worse"],
        "Significantly better": [change for change in finding.prices if change.verdict == "better"],
        "Perhaps worse (a lead)": [change for change in leads if not change.is_improvement],
        "Perhaps better (a lead)": [change for change in leads if change.is_improvement],
    }
    unclear = [change for change in finding.prices if change.verdict in ("not_significant", "unknown")]
    names = joined(escape(change.metric) for change in unclear)
    items = (
        [f"<b>Computation:</b> {finding.compute:.3g} times that of the baseline."]
        if math.isfinite(finding.compute)
        else []
    )
    items += [
        f"<b>{label}:</b> {joined(map(_movement, changes))}." for label, changes in groups.items() if changes
    ]
    if unclear:
        items.append(f"<b>No difference detected on {count(scope.prompts, 'prompt')}:</b> {names}.")
    return items


def _unguided_is_best(finding: Finding, change: Change, scope: Scope, superlative: str) -> str:
    """Say that an unguided cell is the best, and how the best guided cell differs from its baseline."""
    metric = escape(finding.metric)
    best_guided = f"The best guided cell is {scope.label(change.cell)}: {three_digits(change.mean)}"
    if finding.best_mean != change.baseline_mean:  # another model or sampling is better without guidance
        return (
            f"The {superlative} {metric} is <b>without guidance</b>: {three_digits(finding.best_mean)}, in "
            f"{scope.label(finding.best or 0)}. {best_guided}, against "
            f"{three_digits(change.baseline_mean)} in its own baseline. "
            f"{_difference(change)} {_significance(change, scope)}"
        )
    return (
        f"<b>No guided cell improves {metric}</b>, which is {three_digits(finding.best_mean)} "
        "without guidance. "
        f"{best_guided}. {_difference(change)} {_significance(change, scope)}"
    )


def _neighbour(neighbour: Neighbour, scope: Scope) -> str:
    """Say a metric's mean in a neighbour: a cell that differs from the best guided cell in one setting.

    Also say whether the difference between the two cells is significant.
    """
    change = neighbour.change
    setting = f"<b>{escape(neighbour.setting)} {escape(neighbour.value)}</b>"
    mean = (
        f"With {setting} and all else equal, {escape(change.metric)} is {three_digits(change.baseline_mean)}"
    )
    if change.difference == 0:
        return f"{mean} too."
    difference = f"The best cell differs from it by {_estimate(change)}."
    return f"{mean}. {difference} {_significance(change, scope, over='')}"


def _difference(change: Change) -> str:
    return f"The difference is {_estimate(change)}."


def _estimate(change: Change) -> str:
    """Return a difference with its interval as HTML: "+0.1 [0.02, 0.18]"."""
    return f"<b>{signed(change.difference)}</b> {interval(change.low, change.high)}"


def _p(p: float) -> str:
    """Return a p value as text with non-breaking spaces: "p = 0.012"."""
    return escape(p_value(p)).replace(" ", "\N{NO-BREAK SPACE}")


def _significance(change: Change, scope: Scope, over: str | None = None) -> str:
    """Say whether a difference is significant, with its p value.

    Args:
        change: the difference.
        scope: size of the study.
        over: words that say what the correction covers, such as " over 12 comparisons". None means the
            comparisons of all aims and prices.
    """
    corrected, alone = _p(change.p_holm), _p(change.p)
    prompts = count(scope.prompts, "prompt")
    if over is None:
        over = f" over {count(scope.comparisons, 'comparison')}"
    match change.verdict:
        case "better":
            return f"It is a <b>significant</b> improvement: {corrected} after correction, on {prompts}."
        case "worse":
            return f"It is <b>significantly worse</b>: {corrected} after correction, on {prompts}."
        case "different":
            return f"It is <b>significant</b>: {corrected} after correction, on {prompts}."
        case "lead":
            return (
                f"It is <b>a lead, not a result</b>: {alone} before correction, but {corrected} after "
                f"correction{over}.{_prompts_needed(change)}"
            )
        case "not_significant":
            return (
                f"It is not significant: {corrected} after correction, on {prompts}.{_prompts_needed(change)}"
            )
        case "unknown":
            return _unknown(scope)


def reference(finding: Finding) -> str:
    """Give the number that an aim is compared with, such as the accuracy of a constant answer; "" if none."""
    if not math.isfinite(finding.reference_mean):
        return ""
    name = column_info(finding.metric).reference
    return (
        f"For comparison, {escape(name)} is {three_digits(finding.reference_mean)}: "
        f"{escape(column_info(name).meaning)}."
    )


def _not_detected(metric: str, scope: Scope) -> str:
    return f"No difference in {metric} was detected on {count(scope.prompts, 'prompt')}."


def _movement(change: Change) -> str:
    """Return a change as text: "perplexity from 4.61 to 5.94 (+1.33 [0.4, 2.3], p = 0.003)"."""
    return (
        f"{escape(change.metric)} from {three_digits(change.baseline_mean)} to {three_digits(change.mean)} "
        f"({signed(change.difference)} {interval(change.low, change.high)}, {_p(change.p_holm)})"
    )


def _prompts_needed(change: Change) -> str:
    """Say how many prompts would detect the difference; "" if the number is unknown or above MOST_PROMPTS."""
    if not math.isfinite(change.needed) or change.needed > MOST_PROMPTS:
        return ""
    return (
        f" About <b>{count(math.ceil(change.needed), 'prompt')}</b> would detect a difference of this size "
        "with 80 % power, if it were the only comparison."
    )


def _unknown(scope: Scope) -> str:
    """Say why the p value of a difference is unknown."""
    if scope.prompts == 1:
        return "Whether it is more than chance is unknown, because there is one prompt."
    return "Its p value is unknown: too few pairs are scored, or they do not differ at all."


def _names(cells: Iterable[int], scope: Scope) -> str:
    """Return the names of cells in brackets; "" if there are more than CELLS_NAMED cells."""
    labels = [escape(scope.labels[cell]) for cell in cells]
    return f" ({joined(labels)})" if len(labels) <= CELLS_NAMED else ""

"""Findings in plain sentences. All text is HTML-safe; <b> marks what a hurried reader should see."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape

from cfg_lab import analysis
from cfg_lab.analysis.stats.sign_flips import MAX_PROMPTS_FOR_ALL_SIGN_FLIPS, MIN_PROMPTS_FOR_SIGN_FLIPS
from cfg_lab.report.findings import Change, Finding, Rival
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits


@dataclass(frozen=True)
class Scope:
    """What was run.

    Attributes:
        labels: of the cells.
        prompts: how many different ones; the unit that intervals count.
        texts, planned: how many there are and were asked for, over all cells.
        comparisons: how many Holm's correction of the main family runs over.
    """

    labels: tuple[str, ...]
    prompts: int
    texts: int
    planned: int
    comparisons: int

    def label(self, cell: int) -> str:
        return f"<b>{escape(self.labels[cell])}</b>"


def headline(finding: Finding, scope: Scope) -> str:
    """The first sentence about an aim: which cell, by how much, and whether that is shown."""
    metric, change = escape(finding.metric), finding.change
    most = "highest" if analysis.better(finding.metric) == "higher" else "lowest"
    if finding.best is None:
        return f"No text has a score of {metric}, so nothing can be said about it."
    if change is None:
        if len(scope.labels) == 1:
            return (
                f"{metric} is <b>{three_digits(finding.best_mean)}</b> in the only cell. There is nothing to "
                "compare it with."
            )
        return (
            f"{scope.label(finding.best)} has the {most} {metric}, <b>{three_digits(finding.best_mean)}</b>. "
            "What guidance brought cannot be said: these results hold no unguided cell to compare with "
            "(add <code>guidance.scale=1</code> to the sweep)."
        )
    if not finding.beats_unguided:
        return _unguided_is_best(finding, change, scope, most)
    against = (
        f"{scope.label(change.cell)} has the {most} {metric}: {three_digits(change.mean)} against "
        f"{three_digits(change.base)} without guidance, {_estimate(change)}"
    )
    how = escape(p_value(change.p_holm))
    match change.verdict:
        case "better":
            return f"{against}. That is <b>shown</b>: {how} after correction, {_on(scope)}."
        case "lead":
            alone = escape(p_value(change.p))
            return (
                f"{against}. That is <b>a lead, not a result</b>: {alone} alone, but {how} among "
                f"{count(scope.comparisons, 'comparison')}.{_settled(change)}"
            )
        case "unknown":
            return f"{against}. {_unknown(scope)}"
        case _:
            return (
                f"<b>No difference in {metric} that {count(scope.prompts, 'prompt')} could show.</b> "
                f"The {most} is {scope.label(change.cell)} at {three_digits(change.mean)} against "
                f"{three_digits(change.base)} without guidance, {_estimate(change)}; {how} after correction."
                f"{_settled(change)}"
            )


def spread(finding: Finding, scope: Scope) -> str:
    """Of all guided cells, how many are shown better or worse, and where the best of them lies."""
    if finding.guided < 2:
        return ""
    better, worse = len(finding.better), len(finding.worse)
    neither = finding.guided - better - worse
    metric = escape(finding.metric)
    edge = (
        f" The best has the {finding.edge} scale tried; what lies beyond was not asked."
        if finding.edge and finding.beats_unguided
        else ""
    )
    if not better and not worse:
        cells = f"{finding.guided} guided cells"
        return f"In none of the {cells} is {metric} shown to differ from unguided decoding.{edge}"
    parts = [f"better in {better}" if better else "", f"worse in {worse}" if worse else ""]
    rest = f"; {neither} show{'s' if neither == 1 else ''} no difference" if neither else ""
    named = _named(finding.worse, scope) if worse else ""
    shown = joined(part for part in parts if part)
    return (
        f"Of {finding.guided} guided cells, {metric} is shown {shown}{named} beside unguided decoding{rest}."
        f"{edge}"
    )


def rivals(finding: Finding, scope: Scope) -> str:
    """What is due to the negative, or to the rule, of the best guided cell: it beside cells without."""
    shown = finding.rivals[:4]
    sentences = [_rival(one, scope) for one in shown]
    left = len(finding.rivals) - len(shown)
    if left:
        sentences.append(
            f"{count(left, 'further cell')} like it {'is' if left == 1 else 'are'} in the table below."
        )
    return " ".join(sentences)


def _rival(rival: Rival, scope: Scope) -> str:
    change = rival.change
    other = f"<b>{escape(rival.setting)} {escape(rival.value)}</b>"
    begin = f"With {other} instead, all else the same, {escape(change.metric)} is {three_digits(change.base)}"
    how = f"{escape(p_value(change.p_holm))} after correction"
    to_it = f"{begin}; the difference to it, {_estimate(change)}"
    if change.difference == 0:
        return f"{begin} too."
    match change.verdict:
        case "better" | "worse" | "changed":
            return f"{to_it}, is <b>shown</b>: {how}."
        case "lead":
            alone = escape(p_value(change.p))
            return f"{to_it}, is a lead only: {alone} alone, {how}."
        case "unknown":
            return f"{begin}, a difference of {_estimate(change)}. {_unknown(scope)}"
        case _:
            could_not = f"{count(scope.prompts, 'prompt')} could not show"
            return f"{to_it}, {could_not}: {how}.{_settled(change)}"


def price(finding: Finding, scope: Scope) -> str:
    """What the best guided cell costs beside its aim: what is sure first."""
    if not finding.prices or finding.change is None:
        return ""
    leads = [change for change in finding.prices if change.verdict == "lead"]
    worse = [change for change in leads if not change.for_the_better]
    better = [change for change in leads if change.for_the_better]
    cost = [_moved(change) for change in finding.prices if change.verdict == "worse"]
    gain = [_moved(change) for change in finding.prices if change.verdict == "better"]
    none = [escape(change.metric) for change in finding.prices if change.verdict in ("unclear", "unknown")]
    sure = [f"{finding.compute:.3g} times the computation"] if math.isfinite(finding.compute) else []
    sentences = [
        f"<b>Its price:</b> {joined(sure + cost) or 'none is shown'}.",
        f"Perhaps also, a lead only: {joined(map(_moved, worse))}." if worse else "",
        f"It also improves {joined(gain)}." if gain else "",
        f"Perhaps better, a lead only: {joined(map(_moved, better))}." if better else "",
        f"For {joined(none, 'or')} no difference that {count(scope.prompts, 'prompt')} could show."
        if none
        else "",
    ]
    return " ".join(sentence for sentence in sentences if sentence)


def caveats(found: list[Finding], scope: Scope, unscored: list[str]) -> list[str]:
    """What to bear in mind when reading the rest."""
    compared = [finding for finding in found if finding.change is not None]
    notes: list[str] = []
    if any(finding.guided > 1 for finding in compared):
        notes.append(
            "The best cell was <b>chosen on the same texts</b> it is judged by, so its advantage is likely "
            "smaller than it looks. Decode it again with new prompts or another seed before you rely on it."
        )
    if scope.comparisons > 1:
        notes.append(
            f"p values are corrected by Holm's method over the {scope.comparisons} comparisons of aims and "
            "prices; the intervals are 95 % each, not corrected. A difference is called shown only where the "
            "corrected p is below 0.05. Aims and prices are chosen by the metrics' names, not by what came "
            "out; the other metrics are corrected among themselves."
        )
    if (
        MIN_PROMPTS_FOR_SIGN_FLIPS <= scope.prompts <= MAX_PROMPTS_FOR_ALL_SIGN_FLIPS
        and scope.comparisons * 2 / 2**scope.prompts >= 0.05
    ):
        notes.append(
            f"{scope.prompts} prompts cannot show anything among {scope.comparisons} comparisons: no "
            "corrected p can be below 0.05. Ask fewer questions, or of more prompts."
        )
    if any(finding.rivals for finding in found):
        notes.append(
            "Where the best cell stands beside cells like it, p is corrected over these cells and for the "
            "choice of the best among all guided cells, for each aim."
        )
    for finding in compared:
        if finding.unscored:
            those = joined(escape(scope.labels[cell]) for cell in finding.unscored)
            notes.append(f"Not compared, for want of a score of {escape(finding.metric)}: {those}.")
    if scope.planned > scope.texts:
        notes.append(
            f"<b>{scope.texts:,} of {scope.planned:,} planned texts are decoded.</b> Cells may stand on "
            "different prompts, and means need not differ by what pairs do. Run the sweep again to go on."
        )
    if scope.prompts == 1:
        notes.append(
            "There is <b>one prompt</b>: intervals count prompts, so none can be given, and nothing here "
            "says what other prompts would do."
        )
    elif scope.prompts < 10:
        notes.append(
            f"{count(scope.prompts, 'prompt')} are few: intervals are wide, and approximate themselves."
        )
    if unscored:
        notes.append(f"No text has a score of {joined(map(escape, unscored))}.")
    return notes


def _unguided_is_best(finding: Finding, change: Change, scope: Scope, most: str) -> str:
    metric, how = escape(finding.metric), escape(p_value(change.p_holm))
    nearest = f"{scope.label(change.cell)} is at {three_digits(change.mean)}"
    if finding.best_mean != change.base:  # another model or sampling, say, is better without guidance
        found = {
            "better": f"shown better, {how} after correction.",
            "worse": f"shown worse, {how} after correction.",
            "unknown": _unknown(scope),
        }.get(change.verdict, f"not shown, {how} after correction.{_settled(change)}")
        return (
            f"The {most} {metric}, {three_digits(finding.best_mean)}, is <b>without guidance</b>, in "
            f"{scope.label(finding.best or 0)}. The best guided cell, {nearest} against "
            f"{three_digits(change.base)} in its own unguided texts, {_estimate(change)}: {found}"
        )
    begin = (
        f"<b>No guided cell beats unguided decoding on {metric}</b>, which is at "
        f"{three_digits(finding.best_mean)}; the best guided cell, {nearest}, {_estimate(change)}"
    )
    if change.verdict == "worse":
        return f"{begin}. Guidance makes it <b>worse</b>: {how} after correction."
    if change.verdict == "unknown":
        return f"{begin}. {_unknown(scope)}"
    prompts = count(scope.prompts, "prompt")
    return f"{begin}, a difference that {prompts} could not show.{_settled(change)}"


def _estimate(change: Change) -> str:
    return f"<b>{signed(change.difference)}</b> {interval(change.low, change.high)}"


def _moved(change: Change) -> str:
    """ "perplexity from 4.61 to 5.94 (+1.33 [0.4, 2.3], p = 0.003)"."""
    return (
        f"{escape(change.metric)} from {three_digits(change.base)} to {three_digits(change.mean)} "
        f"({signed(change.difference)} {interval(change.low, change.high)}, {escape(p_value(change.p_holm))})"
    )


def _settled(change: Change) -> str:
    if not math.isfinite(change.needed) or change.needed > 1e6:
        return ""
    return (
        f" About <b>{count(math.ceil(change.needed), 'prompt')}</b> would settle a difference of this size "
        "in four studies of five, were it the only comparison."
    )


def _unknown(scope: Scope) -> str:
    if scope.prompts == 1:
        return "One prompt cannot tell a difference from chance."
    return "How sure that is cannot be said: too few pairs are scored, or they do not differ at all."


def _on(scope: Scope) -> str:
    return f"on {count(scope.prompts, 'prompt')}"


def _named(cells: tuple[int, ...], scope: Scope) -> str:
    if len(cells) > 3:
        return ""
    return f" ({joined(escape(scope.labels[cell]) for cell in cells)})"

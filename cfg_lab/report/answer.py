"""The question and the answer as HTML, readable without scripts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

from cfg_lab import analysis
from cfg_lab.report import sentences
from cfg_lab.report.axes import Axis, value_text
from cfg_lab.report.cards import meaning_html
from cfg_lab.report.findings import Change, Finding, Verdict
from cfg_lab.report.roles import Roles
from cfg_lab.report.sentences import Scope
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits

WORDS: dict[Verdict, str] = {
    "better": "shown, better",
    "worse": "shown, worse",
    "changed": "shown",
    "lead": "a lead only",
    "unclear": "not shown",
    "unknown": "unknown",
}


def question(axes: Sequence[Axis], roles: Roles, baseline: bool) -> str:
    """What the study asks, from what varies in it and what is measured."""
    what = joined(f"{escape(axis.name)} <small>({_range(axis)})</small>" for axis in axes)
    aims, prices = joined(map(escape, roles.aims)), joined(map(escape, roles.prices))
    do = "does" if len(axes) == 1 else "do"
    asked = f"What {do} {what} do to {aims}" if what else f"How much {aims} is in these texts"
    if not aims:
        asked = f"What {do} {what} change" if what else "What do these texts look like"
    at = f", and at what price in {prices}" if prices else ""
    beside = ", beside decoding without guidance" if baseline and what else ""
    return f"{asked}{at}{beside}?"


def answer(found: Sequence[Finding], scope: Scope, unscored: Sequence[str], judged: Collection[str]) -> str:
    """A section of sentences, and for each aim a table of differences with their intervals drawn.

    Args:
        unscored: metrics without any score.
        judged: metrics of which the page says how often they are right.
    """
    said: dict[int, str] = {}  # the cell whose price was told, and where
    articles: list[str] = []
    for finding in found:
        before = said.get(finding.change.cell) if finding.change else None
        articles.append(_article(finding, scope, finding.metric in judged, before))
        if finding.change:
            said.setdefault(finding.change.cell, finding.metric)
    if not found:
        articles = [
            "<p class='lead'>None of the metrics has a better direction, so no cell can be said to win. The "
            "table below gives every mean with its interval.</p>"
        ]
    notes = sentences.caveats(list(found), scope, list(unscored))
    listed = "".join(f"<li>{note}</li>" for note in notes)
    aside = f"<aside class='caveats' aria-label='How to read this'><ul>{listed}</ul></aside>" if notes else ""
    return "".join(articles) + aside


def _article(finding: Finding, scope: Scope, judged: bool, before: str | None) -> str:
    name = escape(finding.metric)
    accuracy = " <a href='#metrics'>How often it is right.</a>" if judged else ""
    parts = [
        f"<article class='finding' aria-labelledby='finding-{name}'>",
        f"<h3 id='finding-{name}'>{name}</h3>",
        f"<p class='meaning'>{meaning_html(finding.metric)}.{accuracy}</p>",
        f"<p class='lead'>{sentences.headline(finding, scope)}</p>",
    ]
    cost = sentences.price(finding, scope)
    if before and cost:
        cost = f"It is the cell of {escape(before)} above, at the same price."
    body = " ".join(filter(None, (cost, sentences.spread(finding, scope))))
    parts += [f"<p>{text}</p>" for text in (sentences.rivals(finding, scope), body) if text]
    if finding.change is not None:
        parts.append(_forest([finding.change, *([] if before else finding.prices)], scope))
    return "".join([*parts, "</article>"])


def _forest(changes: Sequence[Change], scope: Scope) -> str:
    rows = "".join(_row(change) for change in changes)
    cell = escape(scope.labels[changes[0].cell])
    return (
        "<div class='box' tabindex='0' role='region' "
        f"aria-label='Differences to unguided decoding: {escape(changes[0].metric)}'>"
        "<table class='forest'>"
        f"<caption>{cell}, beside decoding without guidance. Whiskers are 95 % intervals over "
        f"{count(scope.prompts, 'prompt')}, each row on its own scale around zero.</caption>"
        "<thead><tr><th scope='col'>metric</th><th scope='col'>verdict</th>"
        "<th scope='col' class='n'>difference</th><td aria-hidden='true'></td>"
        "<th scope='col' class='n'>unguided</th><th scope='col' class='n'>guided</th>"
        "<th scope='col' class='n'><abbr title='effect size: the difference in standard deviations of the "
        "prompts&#39; differences'>d<sub>z</sub></abbr></th>"
        f"<th scope='col' class='n'>corrected</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(change: Change) -> str:
    verdict = change.verdict
    arrow = {"higher": "higher is better", "lower": "lower is better", None: ""}[
        analysis.better(change.metric)
    ]
    return (
        f"<tr><th scope='row'>{escape(change.metric)}<small>{arrow}</small></th>"
        f"<td><span class='tag {verdict}'>{WORDS[verdict]}</span></td>"
        f"<td class='n'>{signed(change.difference)} <small>{interval(change.low, change.high)}</small></td>"
        f"<td aria-hidden='true'>{_whisker(change)}</td>"
        f"<td class='n'>{three_digits(change.base)}</td><td class='n'>{three_digits(change.mean)}</td>"
        f"<td class='n'>{signed(change.effect)}</td>"
        f"<td class='n'>{escape(p_value(change.p_holm))}</td></tr>"
    )


def _whisker(change: Change) -> str:
    """Zero in the middle, the interval as a line, the estimate as a dot."""
    if not all(map(math.isfinite, (change.low, change.high, change.difference))):
        return ""
    reach = max(abs(change.low), abs(change.high), abs(change.difference)) or 1.0
    low, at, high = (80 + 74 * value / reach for value in (change.low, change.difference, change.high))
    return (
        f"<svg class='whisker {change.verdict}' viewBox='0 0 160 20' width='160' height='20'>"
        "<line class='zero' x1='80' y1='1' x2='80' y2='19'/>"
        f"<line x1='{low:.1f}' y1='10' x2='{high:.1f}' y2='10'/>"
        f"<circle cx='{at:.1f}' cy='10' r='4'/></svg>"
    )


def _range(axis: Axis) -> str:
    if axis.numeric and len(axis.values) > 2:
        known = [value for value in axis.values if isinstance(value, float)]
        return f"{value_text(min(known))} to {value_text(max(known))}"
    if len(axis.values) > 4:
        return f"{len(axis.values)} of them"
    return ", ".join(escape(value_text(value)) for value in axis.values)

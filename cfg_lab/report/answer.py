"""The question and the answer of a study as HTML that can be read without scripts."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from html import escape

from cfg_lab import analysis
from cfg_lab.analysis.frame import TASK
from cfg_lab.report import sentences
from cfg_lab.report.axes import Axis, value_text
from cfg_lab.report.cards import meaning_html
from cfg_lab.report.caveats import caveats
from cfg_lab.report.change import Change, Verdict
from cfg_lab.report.findings import Finding
from cfg_lab.report.roles import Roles
from cfg_lab.report.scope import Scope
from cfg_lab.study.formats import count, interval, joined, p_value, signed, three_digits

VERDICTS: dict[Verdict, str] = {
    "better": "significantly better",
    "worse": "significantly worse",
    "different": "significantly different",
    "lead": "a lead",
    "not_significant": "not significant",
    "unknown": "unknown",
}
"""Verdict of a comparison -> the words for it in the answer and in the figures."""

VALUES_NAMED = 4  # a setting with more values is described by their range or number


def question(axes: Sequence[Axis], roles: Roles, compared: bool) -> str:
    """Return the question of a study in a few words: what guidance does to the first aim.

    An aim is a metric that guidance is meant to improve. `design` names all other metrics.

    Args:
        axes: the settings that differ between cells.
        roles: the metrics by their role.
        compared: whether cells are compared with decoding without guidance.
    """
    aim = escape(roles.aims[0]) if roles.aims else ""
    axes = [axis for axis in axes if axis.key != TASK]  # tasks are not compared
    if not axes:
        return f"How do these texts score on {aim}?" if aim else "What are these texts like?"
    if not aim or not compared:
        settings, do = joined(escape(axis.name) for axis in axes), "does" if len(axes) == 1 else "do"
        return f"What {do} {settings} do to {aim}?" if aim else f"What {do} {settings} change?"
    effect = "raise" if analysis.better(roles.aims[0]) == "higher" else "lower"
    return f"Does guidance {effect} {aim}{', and at what price' if roles.prices else ''}?"


def conclusion_html(lines: Sequence[str]) -> str:
    """Return the lines of a conclusion as HTML paragraphs, with the first words of each in bold."""
    paragraphs: list[str] = []
    for line in lines:
        verdict, colon, rest = line.partition(":")
        beginning = f"<b>{escape(verdict)}:</b>" if colon else escape(verdict)
        paragraphs.append(f"<p>{beginning}{escape(rest)}</p>")
    return f"<div class='conclusion'>{''.join(paragraphs)}</div>" if paragraphs else ""


def design(axes: Sequence[Axis], roles: Roles, compared: bool) -> dict[str, str]:
    """Return details of the question, as title -> text: settings that vary, metrics, and comparison.

    Args:
        axes: the settings that differ between cells.
        roles: the metrics by their role: aim, price or neither.
        compared: whether cells are compared with decoding without guidance.
    """
    details = {
        "varied": "; ".join(f"{escape(axis.name)} ({_range(axis)})" for axis in axes),
        "aims": ", ".join(map(escape, roles.aims)),
        "prices": ", ".join(map(escape, roles.prices)),
        "compared with": "decoding without guidance, on the same prompts" if compared and axes else "",
    }
    return {title: detail for title, detail in details.items() if detail}


def answer(results: Sequence[Finding], scope: Scope, unscored: Sequence[str], judged: Collection[str]) -> str:
    """Return the answer as HTML: one <article> per finding, and notes on how to read them.

    An aim is a metric that guidance is meant to improve. Its article has sentences and a table of
    differences.

    Args:
        results: one finding per aim, and per task if there are several.
        scope: size of the study.
        unscored: names of the metrics without any score.
        judged: names of the metrics whose accuracy the page reports.
    """
    articles: list[str] = []
    aims_by_cell: dict[int, str] = {}  # best guided cell -> the aim whose article lists its prices
    for finding in results:
        earlier_aim = aims_by_cell.get(finding.change.cell) if finding.change else None
        articles.append(_article(finding, scope.of_task(finding.task), finding.metric in judged, earlier_aim))
        if finding.change:
            aims_by_cell.setdefault(finding.change.cell, finding.metric)
    if not results:
        articles = [
            "<p class='lead'>None of the metrics has a direction that is better, so no cell is the best. The "
            "table below gives every mean with its interval.</p>"
        ]
    notes = caveats(results, scope, unscored)
    aside = f"<aside class='caveats' aria-label='How to read this'>{_list(notes)}</aside>" if notes else ""
    return "".join(articles) + aside


def _article(finding: Finding, scope: Scope, judged: bool, earlier_aim: str | None) -> str:
    """Return the article of one aim.

    The article also lists prices. A price is a metric that guidance can make worse. The page lists the prices
    of a cell only once. If an earlier aim has the same best guided cell, this article does not repeat the
    prices but names the earlier aim.

    Args:
        finding: how guidance changed the aim.
        scope: size of the study.
        judged: whether the page reports how accurate the scores of this aim are.
        earlier_aim: an earlier aim whose article already lists the prices of this cell; None if there is no
            such aim.
    """
    name = escape(finding.metric)
    heading = f"{escape(finding.task)}: {name}" if finding.task else name
    anchor = escape(
        f"finding-{finding.task}-{finding.metric}" if finding.task else f"finding-{finding.metric}"
    )
    accuracy = " <a href='#metrics'>How accurate it is</a>" if judged else ""
    parts = [
        f"<article class='finding' aria-labelledby='{anchor}'>",
        f"<h3 id='{anchor}'>{heading}</h3>",
        f"<p class='meaning'>{meaning_html(finding.metric)}.{accuracy}</p>",
        f"<p class='lead'>{sentences.headline(finding, scope)}</p>",
        *(
            f"<p>{text}</p>"
            for text in (
                sentences.reference(finding),
                sentences.neighbours(finding, scope),
                sentences.spread(finding, scope),
            )
            if text
        ),
    ]
    prices = sentences.prices(finding, scope)
    if prices and earlier_aim:
        parts.append(
            f"<p>The best guided cell is the same as for {escape(earlier_aim)}, at the same price.</p>"
        )
    elif prices:
        parts.append(f"<p class='price'><b>Its price:</b></p>{_list(prices)}")
    if finding.change is not None:
        parts.append(_forest([finding.change, *([] if earlier_aim else finding.prices)], scope))
    return "".join([*parts, "</article>"])


def _list(items: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _forest(changes: Sequence[Change], scope: Scope) -> str:
    """Return a table of differences to the baseline as HTML. Each interval is also drawn.

    The baseline is the cell without guidance that a guided cell is compared with.
    """
    rows = "".join(_row(change) for change in changes)
    cell = escape(scope.labels[changes[0].cell])
    return (
        "<div class='box' tabindex='0' role='region' "
        f"aria-label='Differences to decoding without guidance: {escape(changes[0].metric)}'>"
        "<table class='forest'>"
        f"<caption>{cell}, compared with decoding without guidance. Lines are 95 % intervals over "
        f"{count(scope.prompts, 'prompt')}. Each row has its own scale, with zero in the middle.</caption>"
        "<thead><tr><th scope='col'>metric</th><th scope='col'>verdict</th>"
        "<th scope='col' class='n'>difference</th><td aria-hidden='true'></td>"
        "<th scope='col' class='n'>unguided</th><th scope='col' class='n'>guided</th>"
        "<th scope='col' class='n'><abbr title='effect size: the difference in standard deviations of the "
        "prompts&#39; differences'>d<sub>z</sub></abbr></th>"
        f"<th scope='col' class='n'>corrected</th></tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _row(change: Change) -> str:
    """Return the HTML table row of one difference between a cell and its baseline."""
    verdict = change.verdict
    direction = analysis.better(change.metric)
    better = f"{direction} is better" if direction else ""
    return (
        f"<tr><th scope='row'>{escape(change.metric)}<small>{better}</small></th>"
        f"<td><span class='tag {verdict}'>{VERDICTS[verdict]}</span></td>"
        f"<td class='n'>{signed(change.difference)} <small>{interval(change.low, change.high)}</small></td>"
        f"<td aria-hidden='true'>{_interval_drawing(change)}</td>"
        f"<td class='n'>{three_digits(change.baseline_mean)}</td>"
        f"<td class='n'>{three_digits(change.mean)}</td>"
        f"<td class='n'>{signed(change.effect)}</td>"
        f"<td class='n'>{escape(p_value(change.p_holm))}</td></tr>"
    )


def _interval_drawing(change: Change) -> str:
    """Draw the interval as a line and the estimate as a dot, with zero in the middle.

    Return SVG; "" if the interval is unknown.
    """
    if not all(map(math.isfinite, (change.low, change.high, change.difference))):
        return ""
    reach = max(abs(change.low), abs(change.high), abs(change.difference)) or 1.0
    low, estimate, high = (80 + 74 * value / reach for value in (change.low, change.difference, change.high))
    return (
        f"<svg class='whisker {change.verdict}' viewBox='0 0 160 20' width='160' height='20'>"
        "<line class='zero' x1='80' y1='1' x2='80' y2='19'/>"
        f"<line x1='{low:.1f}' y1='10' x2='{high:.1f}' y2='10'/>"
        f"<circle cx='{estimate:.1f}' cy='10' r='4'/></svg>"
    )


def _range(axis: Axis) -> str:
    """Return the values of an axis (a setting that varies) as text.

    Three or more numbers are written as their range. If there are too many values that are not numbers, the
    text says only how many values there are. All other values are listed.
    """
    if axis.numeric and len(axis.values) > 2:
        numbers = [value for value in axis.values if isinstance(value, float)]
        return f"{value_text(min(numbers))} to {value_text(max(numbers))}"
    if len(axis.values) > VALUES_NAMED:
        return f"{len(axis.values)} values"
    return ", ".join(escape(value_text(value)) for value in axis.values)

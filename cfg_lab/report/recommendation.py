"""The page's section about what `python -m cfg_lab.choose` recommends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cfg_lab.report.search_table import number
from cfg_lab.study.formats import interval, p_value, signed, three_digits

KEYS = ("column", "conclusion", "recommended", "methods")
"""The keys of choice.yaml that the page shows."""


def recommendation_lines(recommendation: Mapping[str, Any]) -> tuple[str, ...]:
    """What is recommended and what is shown, for the head of the page; () if there is no recommendation."""
    if not recommendation:
        return ()
    shown = [line for line in recommendation["conclusion"] if line.startswith(("Shown", "Not shown"))]
    return (f"Recommended: {recommendation['recommended']['setting']}.", *shown)


def recommendation_section(recommendation: Mapping[str, Any]) -> str:
    """Return the section as HTML; "" if there is no recommendation.

    Args:
        recommendation: the content of choice.yaml, from `cfg_lab.choose.output.choice_file`.
    """
    if not recommendation:
        return ""
    setting, command = (recommendation["recommended"][key] for key in ("setting", "command"))
    first, *others = recommendation["conclusion"]
    return (
        "<section id='recommendation' aria-labelledby='h-recommendation'>"
        "<h2 id='h-recommendation'>Recommendation</h2>"
        "<article class='finding' aria-labelledby='recommended'>"
        f"<h3 id='recommended'>{escape(setting)}</h3>"
        f"<p class='lead'>{escape(first)}</p>{''.join(f'<p>{escape(line)}</p>' for line in others)}"
        f"{_table(recommendation)}"
        f"<p>To decode with it:</p><pre class='command' tabindex='0'><code>{escape(command)}</code></pre>"
        "<p>The best guided setting was chosen on other prompts. The answer below does not know this: it "
        "corrects for the choice among all guided cells of this folder, and for more comparisons.</p>"
        "</article></section>"
    )


def _table(recommendation: Mapping[str, Any]) -> str:
    """One row per method: its mean, its change from plain decoding on both halves, and the comparison."""
    heads = (recommendation["column"], "change: choice", "change: held out", _LAST, "p")
    head = "".join(f"<th scope='col' class='n'>{escape(title)}</th>" for title in heads)
    rows = "".join(_row(row) for row in recommendation["methods"])
    return (
        "<div class='box' tabindex='0' role='region' aria-label='Methods on both halves of the prompts'>"
        "<table class='forest halves'><caption>Means on held-out prompts, and changes from plain decoding "
        "with 95 % intervals: on the prompts of the choice, and on held-out prompts. p is that of the last "
        "difference, after Holm's correction.</caption>"
        f"<thead><tr><th scope='col'>method</th>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


_LAST = "best guided \N{MINUS SIGN} this"
_DIFFERENCES = ("change_on_selection", "change_on_held_out", "best_guided_minus_this")


def _row(row: Mapping[str, Any]) -> str:
    """The row of a method."""
    numbers = [three_digits(number(row, "mean")), *(_difference(row[key]) for key in _DIFFERENCES)]
    cells = "".join(f"<td class='n'>{text}</td>" for text in [*numbers, _p(row["p_holm"])])
    return f"<tr><th scope='row'>{escape(row['method'])}</th>{cells}</tr>"


def _difference(numbers: Sequence[float | None] | None) -> str:
    """A difference with its interval; a dash if there is none."""
    if numbers is None:
        return "\N{EM DASH}"
    mean, low, high = (math.nan if value is None else value for value in numbers)
    return f"{signed(mean)} <small>{interval(low, high)}</small>"


def _p(value: float | None) -> str:
    return "\N{EM DASH}" if value is None else escape(p_value(value).removeprefix("p ").removeprefix("= "))

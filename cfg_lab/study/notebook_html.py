"""Texts and results as HTML for notebooks. The HTML has its own style, no script, and loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

from cfg_lab.decoding.trace import DISTRIBUTIONS
from cfg_lab.study.formats import count, interval, signed, three_digits

if TYPE_CHECKING:
    import pandas as pd

    from cfg_lab.decoding.completion import Completion

LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Lower limits of the five levels of colour, in nats. A level shows how much a token's log-prob changed."""

_ALPHA = (0, 0.1, 0.2, 0.3, 0.42, 0.55)
_UP, _DOWN = "28,112,180", "205,95,20"  # blue and orange differ for every common colour blindness

# A token's card appears below the text: beside the token, a notebook would cut it off at the output's edge.
_STYLE = """
.cfg-lab-t{position:relative;max-width:70em}
.cfg-lab-t>div{line-height:2;white-space:pre-wrap;overflow-wrap:anywhere}
.cfg-lab-t>div>span{border-radius:2px;cursor:default;text-underline-offset:.22em}
.cfg-lab-t>div>span:focus,.cfg-lab-t>div>span:hover{outline:1.5px solid currentColor}
.cfg-lab-t>p{font:12px/1.5 sans-serif;opacity:.75;margin:.3em 0 0;min-height:7.4em}
.cfg-lab-t>div>span>span{position:absolute;left:0;bottom:0;box-sizing:border-box;width:100%;min-height:88px;
padding:8px 12px;border-radius:4px;background:#211f1b;color:#fbf9f4;font:12px/1.5 sans-serif;
white-space:pre-wrap;text-decoration:none;pointer-events:none}
.cfg-lab-t>div>span:focus>span,.cfg-lab-t>div>span:hover>span{display:block!important;z-index:1}
.cfg-lab-t>div>span:hover>span{z-index:2}
""".replace("\n", "")

_LEGEND = (
    "<p>Blue, solid line: guidance made the token likelier. Orange, dotted line: less likely.<br>"
    "Hover over a token, or Tab to it, for its numbers; a click keeps them.</p>"
)


def token_html(
    pieces: Sequence[str],
    trace: Mapping[str, Sequence[float]],
    alternatives: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]] | None = None,
) -> str:
    """A text as HTML, each token coloured by how much guidance changed its log-prob.

    The change is the token's log-prob under the guided distribution minus that under the positive one. A
    token that guidance made likelier is blue with a solid underline. A token that guidance made less likely
    is orange with a dotted underline. Hover or keyboard focus shows the token's numbers.

    Args:
        pieces: the text of each token.
        trace: name -> one value per token, as in `completion.trace.columns`. NaN is not shown.
        alternatives: distribution ("guided", "positive" or "negative") -> a list with one entry per token.
            Each entry is a list of the likeliest tokens at that step: {"piece": text, "log_prob": nats}.

    Raises:
        ValueError: a column of the trace does not have one value per piece.
    """
    for name, values in trace.items():
        if len(values) != len(pieces):
            raise ValueError(f"trace {name!r} has {len(values)} values for {len(pieces)} pieces")
    tokens = "".join(_token(index, piece, trace, alternatives or {}) for index, piece in enumerate(pieces))
    return f'<style>{_STYLE}</style><div class="cfg-lab-t"><div dir="auto">{tokens}</div>{_LEGEND}</div>'


def completion_html(completion: Completion) -> str:
    """The HTML of a completion, like that of `token_html` but with token ids in place of the tokens' text.

    No tokenizer is needed.
    """
    pieces = [f"{token} " for token in completion.tokens]
    return token_html(pieces, completion.trace.columns, completion.trace.alternatives_as_text(str))


def row_html(row: Mapping[str, Any]) -> str:
    """The HTML of `token_html` for one text of a sweep.

    Args:
        row: a row of `cfg_lab.load_results`, such as `results.iloc[0]`.

    Raises:
        ValueError: the row has no token pieces, because its sweep was made by an older version of the lab.
    """
    columns = {str(name): value for name, value in row.items()}
    if columns.get("pieces") is None:
        raise ValueError("this row has no 'pieces', the texts of its tokens; run its sweep again to get them")
    trace, alternatives = (
        {name.removeprefix(kind): column for name, column in columns.items() if name.startswith(kind)}
        for kind in ("trace_", "alternatives_")
    )
    stored = {name: tokens for name, tokens in alternatives.items() if tokens is not None}
    return token_html(columns["pieces"], trace, stored)


def results_html(summary: pd.DataFrame) -> str:
    """A summary as an HTML table with one row per cell. Each metric has its mean, 95 % interval and n.

    Args:
        summary: a frame from `cfg_lab.analysis.summary`. A metric m has columns m, m_low, m_high and m_n.
            The other columns are shown as they are.
    """
    columns = [str(name) for name in summary.columns]
    metrics = [name for name in columns if {f"{name}_low", f"{name}_high", f"{name}_n"} <= set(columns)]
    interval_columns = {f"{name}{ending}" for name in metrics for ending in ("_low", "_high", "_n")}
    shown = [name for name in columns if name not in interval_columns]
    head = "".join(f'<th scope="col" style="text-align:left">{escape(name)}</th>' for name in shown)
    body = "".join(
        "<tr>"
        + "".join(
            f'<td style="text-align:left;white-space:nowrap">{_value(row, name, metrics)}</td>'
            for name in shown
        )
        + "</tr>"
        for row in cast("list[dict[str, Any]]", summary.to_dict("records"))
    )
    return (
        '<div style="overflow-x:auto;max-width:100%"><table style="font-variant-numeric:tabular-nums">'
        f'<caption style="text-align:left">{count(len(summary), "cell")}; mean [95 % interval] n</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def level(moved: float) -> int:
    """The level of colour for a change of log-prob in nats: from 0 (no colour) to 5 (strongest)."""
    return sum(abs(moved) >= limit for limit in LEVELS) if math.isfinite(moved) else 0


def visible(piece: str) -> str:
    """A piece of text on one line: control characters become visible signs, an empty piece becomes ∅."""
    return (
        "".join({"\n": "↵", "\t": "⇥"}.get(c, "·" if ord(c) < 32 or ord(c) == 127 else c) for c in piece)
        or "∅"
    )


def _token(
    index: int,
    piece: str,
    trace: Mapping[str, Sequence[float]],
    alternatives: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]],
) -> str:
    """The HTML of one token with its card: the box that shows the token's numbers on hover or focus."""
    numbers = {name: float(values[index]) for name, values in trace.items()}
    moved = numbers.get("guided", math.nan) - numbers.get("positive", math.nan)
    colour_level = level(moved)
    style = ""
    if colour_level:
        colour, line = (_UP, "solid") if moved > 0 else (_DOWN, "dotted")
        style = (
            f' style="background:rgba({colour},{_ALPHA[colour_level]});'
            f'text-decoration:underline {line} rgb({colour}) {0.5 + colour_level / 2}px"'
        )
    first_line = [visible(piece), f"{signed(moved)} nats" if math.isfinite(moved) else ""]
    first_line += [
        f"{name} {three_digits(value)}"
        for name, value in numbers.items()
        if name not in DISTRIBUTIONS and math.isfinite(value)
    ]
    lines = ["   ".join(filter(None, first_line))]
    for name in DISTRIBUTIONS:
        steps = alternatives.get(name, ())
        likeliest = steps[index] if index < len(steps) else ()
        lines.append(_distribution_line(name, numbers.get(name, math.nan), likeliest))
    body = escape(piece).replace("\n", "↵\n") if piece else "∅"
    card = escape("\n".join(filter(None, lines)))
    token = f'<span tabindex="0"{style}>{body}<span role="tooltip" hidden>{card}</span></span>'
    return token.replace("\x00", "·")


def _distribution_line(name: str, log_prob: float, likeliest: Sequence[Mapping[str, Any]]) -> str:
    """A card's line about one distribution: the token's log-prob in it, and its likeliest tokens.

    The line is "" if neither the log-prob nor the likeliest tokens are known.
    """
    token = f"{three_digits(log_prob)} ({100 * math.exp(log_prob):.3g} %)" if math.isfinite(log_prob) else ""
    tokens = ", ".join(
        f"{visible(str(alternative['piece']))} {100 * math.exp(float(alternative['log_prob'])):.2g} %"
        for alternative in likeliest
    )
    line = "   ".join(filter(None, [token, f"likeliest: {tokens}" if tokens else ""]))
    return f"{name} {line}" if line else ""


def _value(row: Mapping[str, Any], name: str, metrics: Sequence[str]) -> str:
    """The HTML of one value in the summary table: a setting, or a metric's mean with its interval and n."""
    value = row[name]
    if name not in metrics:
        return escape(three_digits(value) if isinstance(value, float) else str(value))
    estimate = interval(float(row[f"{name}_low"]), float(row[f"{name}_high"]))
    return f"<b>{three_digits(float(value))}</b> <small>{estimate} n={int(row[f'{name}_n'])}</small>"

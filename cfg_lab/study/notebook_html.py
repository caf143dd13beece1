"""Results as HTML fragments for notebooks: no script, a style of their own, nothing fetched."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any, cast

from cfg_lab.decoding.trace import DISTRIBUTIONS
from cfg_lab.study.formats import count, interval, short, signed

if TYPE_CHECKING:
    import pandas as pd

    from cfg_lab.decoding.completion import Completion

LEVELS = (0.05, 0.2, 0.5, 1.0, 2.0)
"""Nats by which guidance moved a token, from which on each of five steps of colour is used."""

_ALPHA = (0, 0.1, 0.2, 0.3, 0.42, 0.55)
_UP, _DOWN = "28,112,180", "205,95,20"  # blue and orange: apart for every common colour blindness

# A card has its own place below the text: beside its token a notebook would cut it off at the output's edge.
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
    """A text with each token coloured by how far guidance moved it, its numbers on hover and focus.

    Colour and underline show log-prob under the guided minus under the positive branch: blue and a solid line
    where guidance made the token likelier, orange and a dotted line where it made it less likely.

    Args:
        pieces: the text of each token.
        trace: `completion.trace.columns`, or some of them; each as long as pieces. NaN is not shown.
        alternatives: for "positive", "guided" and "negative", of each token the likeliest ones, as
            {"piece": str, "log_prob": float}.

    Raises:
        ValueError: a column of the trace is not as long as the pieces.
    """
    for name, values in trace.items():
        if len(values) != len(pieces):
            raise ValueError(f"trace {name!r} has {len(values)} values for {len(pieces)} pieces")
    tokens = "".join(_token(index, piece, trace, alternatives or {}) for index, piece in enumerate(pieces))
    return f'<style>{_STYLE}</style><div class="cfg-lab-t"><div dir="auto">{tokens}</div>{_LEGEND}</div>'


def completion_html(completion: Completion) -> str:
    """The token view of a completion, which knows no text: each token is shown by its id."""
    pieces = [f"{token} " for token in completion.tokens]
    return token_html(pieces, completion.trace.columns, completion.trace.alternatives_as_text(str))


def row_html(row: Mapping[str, Any]) -> str:
    """The token view of one text of a sweep.

    Args:
        row: of results from `cfg_lab.load_results`, such as `results.iloc[0]`.

    Raises:
        ValueError: the row has no token pieces; it is of a sweep from before they were kept.
    """
    columns = {str(name): value for name, value in row.items()}
    if columns.get("pieces") is None:
        raise ValueError("this row has no 'pieces', the texts of its tokens; sweeps keep them by now")
    trace, alternatives = (
        {name.removeprefix(kind): column for name, column in columns.items() if name.startswith(kind)}
        for kind in ("trace_", "alternatives_")
    )
    return token_html(
        columns["pieces"], trace, {name: kept for name, kept in alternatives.items() if kept is not None}
    )


def results_html(summary: pd.DataFrame) -> str:
    """A summary as a table: a row a cell, of each metric the mean, its 95 % interval and n.

    Args:
        summary: as `cfg_lab.analysis.summary` gives it: a metric m has columns m, m_low, m_high and m_n;
            the other columns are shown as they are.
    """
    columns = [str(name) for name in summary.columns]
    metrics = [name for name in columns if {f"{name}_low", f"{name}_high", f"{name}_n"} <= set(columns)]
    parts = {f"{name}{end}" for name in metrics for end in ("_low", "_high", "_n")}
    shown = [name for name in columns if name not in parts]
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
    """The step of colour of a move in nats: 0 (hardly any) to 5."""
    return sum(abs(moved) >= least for least in LEVELS) if math.isfinite(moved) else 0


def visible(piece: str) -> str:
    """A piece on one line: control characters as signs, the empty one as ∅."""
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
    numbers = {name: float(values[index]) for name, values in trace.items()}
    moved = numbers.get("guided", math.nan) - numbers.get("positive", math.nan)
    step = level(moved)
    look = ""
    if step:
        colour, line = (_UP, "solid") if moved > 0 else (_DOWN, "dotted")
        look = (
            f' style="background:rgba({colour},{_ALPHA[step]});'
            f'text-decoration:underline {line} rgb({colour}) {0.5 + step / 2}px"'
        )
    first = [visible(piece), f"{signed(moved)} nats" if math.isfinite(moved) else ""]
    first += [
        f"{name} {short(value)}"
        for name, value in numbers.items()
        if name not in DISTRIBUTIONS and math.isfinite(value)
    ]
    lines = ["   ".join(filter(None, first))]
    for name in DISTRIBUTIONS:
        kept = alternatives.get(name, ())
        lines.append(_branch(name, numbers.get(name, math.nan), kept[index] if index < len(kept) else ()))
    body = escape(piece).replace("\n", "↵\n") if piece else "∅"
    card = escape("\n".join(filter(None, lines)))
    token = f'<span tabindex="0"{look}>{body}<span role="tooltip" hidden>{card}</span></span>'
    return token.replace("\x00", "·")


def _branch(name: str, log_prob: float, likeliest: Sequence[Mapping[str, Any]]) -> str:
    """A line of what a branch says; "" where it says nothing."""
    own = f"{short(log_prob)} ({100 * math.exp(log_prob):.3g} %)" if math.isfinite(log_prob) else ""
    tops = ", ".join(
        f"{visible(str(one['piece']))} {100 * math.exp(float(one['log_prob'])):.2g} %" for one in likeliest
    )
    said = "   ".join(part for part in (own, f"likeliest: {tops}" if tops else "") if part)
    return f"{name} {said}" if said else ""


def _value(row: Mapping[str, Any], name: str, metrics: Sequence[str]) -> str:
    value = row[name]
    if name not in metrics:
        return escape(short(value) if isinstance(value, float) else str(value))
    around = interval(float(row[f"{name}_low"]), float(row[f"{name}_high"]))
    return f"<b>{short(float(value))}</b> <small>{around} n={int(row[f'{name}_n'])}</small>"

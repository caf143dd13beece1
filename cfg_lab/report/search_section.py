"""The page's section about searches: chosen cells on both halves of the prompts, and all trials."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from cfg_lab.report.search_table import ROLES, number, search_verdict
from cfg_lab.study.formats import interval, signed, three_digits

WIDTH, HEIGHT = 640, 190  # of a figure, in units of its drawing
LEFT, RIGHT, TOP, BOTTOM = 56, 10, 12, 30  # its margins


def search_section(results: Sequence[Mapping[str, Any]]) -> str:
    """Return the section as HTML; "" if the results folder has no search.

    Args:
        results: the results of the searches of the folder, from `cfg_lab.search.trials.results_of`.
    """
    if not results:
        return ""
    articles = "".join(_article(result) for result in results)
    return (
        f"<section id='search' aria-labelledby='h-search'><h2 id='h-search'>Search</h2>{articles}</section>"
    )


def _article(result: Mapping[str, Any]) -> str:
    space = "; ".join(f"{escape(key)} ({escape(words)})" for key, words in result["space"].items())
    first, *others = search_verdict(result)
    figures = "".join(_history(result, column) for column in result["aims"])
    anchor = f"search-{escape(result['search'])}"
    return (
        f"<article class='finding' aria-labelledby='{anchor}'>"
        f"<h3 id='{anchor}'>{escape(', '.join(result['objective']))}</h3>"
        f"<p class='meaning'>Searched: {space}.</p>"
        f"<p class='lead'>{escape(first)}</p>{''.join(f'<p>{escape(line)}</p>' for line in others)}"
        f"{_table(result)}{figures}{_trials(result)}</article>"
    )


def _table(result: Mapping[str, Any]) -> str:
    """One row per chosen cell and reference: the means on both halves, and the optimism."""
    prompts, columns = result["prompts"], result["columns"]
    heads = "".join(
        f"<th scope='col' class='n'>{escape(column)}, selection</th><th scope='col' class='n'>held-out</th>"
        "<th scope='col' class='n'>optimism</th>"
        for column in columns
    )
    rows = "".join(
        f"<tr><th scope='row'>{escape(row['label'])}<small>{_role(row)}</small></th>"
        + "".join(_numbers(row["numbers"][column]) for column in columns)
        + "</tr>"
        for row in result["finalists"]
    )
    return (
        "<div class='box' tabindex='0' role='region' aria-label='Chosen cells on both halves of the prompts'>"
        "<table class='forest halves'><caption>Means with 95 % intervals on the "
        f"{prompts['selection']} prompts that chose, and on {prompts['held_out']} others. Optimism is the "
        "gain over plain decoding on the selection half, minus that on the held-out half, in the direction "
        "that is good.</caption>"
        f"<thead><tr><th scope='col'>cell</th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _role(row: Mapping[str, Any]) -> str:
    if row["role"] != "chosen":
        return "" if row["role"] == "plain" else ROLES[row["role"]]
    return f"trial {row['trial'] + 1}" + (
        f"; beyond {escape(', '.join(row['broken']))} on the held-out half" if row["broken"] else ""
    )


def _numbers(numbers: Mapping[str, Any]) -> str:
    cells = [
        (three_digits(number(numbers[half], "mean")), numbers[half]) for half in ("selection", "held_out")
    ]
    optimism = numbers["optimism"]
    cells.append((signed(number(optimism, "difference")) if optimism else "\N{EM DASH}", optimism))
    return "".join(
        f"<td class='n'>{text}{f' <small>{_ends(values)}</small>' if values else ''}</td>"
        for text, values in cells
    )


def _ends(values: Mapping[str, Any]) -> str:
    return interval(number(values, "low"), number(values, "high"))


def _history(result: Mapping[str, Any], column: str) -> str:
    """The mean of an aim over the trials: a dot each, hollow beyond a limit, and a line of the best."""
    trials = [trial for trial in result["trials"] if trial["means"]]
    values = [float(trial["means"][column]) for trial in trials]
    if len(values) < 2:
        return ""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    last = max(len(result["trials"]) - 1, 1)

    def x(trial: Mapping[str, Any]) -> float:
        return LEFT + 6 + (WIDTH - LEFT - RIGHT - 12) * trial["number"] / last

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * (value - low) / span

    def dot(trial: Mapping[str, Any], value: float) -> str:
        kind, title = "kept" if trial["feasible"] else "broken", f"{trial['label']}: {three_digits(value)}"
        return (
            f"<circle class='{kind}' cx='{x(trial):.1f}' cy='{y(value):.1f}' r='3.5'>"
            f"<title>trial {trial['number'] + 1}: {escape(title)}</title></circle>"
        )

    sign = 1 if result["aims"][column] == "higher" else -1
    best, path = -math.inf, ""
    for trial, value in zip(trials, values, strict=True):
        if trial["feasible"] and sign * value > best:
            before = f"H{x(trial):.1f}V{y(value):.1f}" if path else f"M{x(trial):.1f} {y(value):.1f}"
            best, path = sign * value, path + before
    path += f"H{WIDTH - RIGHT}" if path else ""
    dots = "".join(map(dot, trials, values))
    name = escape(column)
    better = "higher" if sign == 1 else "lower"
    return (
        "<figure class='plate'>"
        f"<svg class='history' viewBox='0 0 {WIDTH} {HEIGHT}' role='img' "
        f"aria-label='{name} of every trial on the selection half, in the order of the trials'>"
        f"<line class='axis' x1='{LEFT}' y1='{HEIGHT - BOTTOM}' x2='{WIDTH - RIGHT}' "
        f"y2='{HEIGHT - BOTTOM}'/>"
        f"<text x='{LEFT - 8}' y='{y(high) + 4:.1f}' text-anchor='end'>{three_digits(high)}</text>"
        f"<text x='{LEFT - 8}' y='{y(low):.1f}' text-anchor='end'>{three_digits(low)}</text>"
        f"<text x='{LEFT}' y='{HEIGHT - 8}'>trial 1</text>"
        f"<text x='{WIDTH - RIGHT}' y='{HEIGHT - 8}' text-anchor='end'>{last + 1}</text>"
        f"<path class='best' d='{path}'/>{dots}</svg>"
        f"<figcaption>{name} of every trial on the selection half ({better} is better); the line is the "
        "best so far. Hollow dots are beyond a limit.</figcaption></figure>"
    )


def _trials(result: Mapping[str, Any]) -> str:
    """Every trial as a table that opens on a click."""
    heads = "".join(f"<th scope='col' class='n'>{escape(column)}</th>" for column in result["columns"])
    rows = "".join(_trial(trial, result["columns"]) for trial in result["trials"])
    return (
        f"<details><summary>All {len(result['trials'])} trials</summary>"
        "<div class='box' tabindex='0' role='region' aria-label='All trials of the search'>"
        "<table class='plain'><thead><tr><th scope='col'>trial</th><th scope='col'>settings</th>"
        f"{heads}<th scope='col'>limits</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
    )


def _trial(trial: Mapping[str, Any], columns: Sequence[str]) -> str:
    means = "".join(
        f"<td class='n'>{three_digits(number(trial['means'], column))}</td>" for column in columns
    )
    state = trial["failure"] or ("kept" if trial["feasible"] else "beyond a limit")
    return (
        f"<tr><th scope='row'>{trial['number'] + 1}</th><td>{escape(trial['label'])}</td>{means}"
        f"<td>{escape(state)}</td></tr>"
    )

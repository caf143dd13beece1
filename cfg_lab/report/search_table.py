"""The result of a search in words: the table of both halves of the prompts, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from cfg_lab.study.formats import count, interval, p_value, signed, three_digits

ROLES = {"chosen": "chosen", "default": "hand-made", "plain": "plain"}
"""Role of a row -> the word for it."""


def search_table(result: Mapping[str, Any], width: int) -> Table:
    """One row per chosen cell and reference: means on both halves, and the optimism of choosing.

    Args:
        result: from `cfg_lab.search.run.run_search`.
        width: width of the console. In a narrow one, only the columns of the aims are shown.
    """
    columns = result["columns"] if width >= 120 else list(result["aims"])
    table = Table(header_style="bold", row_styles=["", "on grey11"], caption_justify="left")
    table.add_column("search", overflow="fold")
    for column in columns:
        for title in (f"{column}\nselection", "held-out", "optimism"):
            table.add_column(title, justify="right", no_wrap=True)
    for row in result["finalists"]:
        cells = [f"{ROLES[row['role']]}\n{row['label']}" if row["role"] != "plain" else row["label"]]
        for column in columns:
            numbers = row["numbers"][column]
            cells += [mean_text(numbers[half]) for half in ("selection", "held_out")]
            cells.append(difference_text(numbers["optimism"]))
        table.add_row(*map(escape, cells))
    table.caption = _caption(result)
    return table


def _caption(result: Mapping[str, Any]) -> str:
    prompts = result["prompts"]
    return (
        f"means with 95 % intervals over {prompts['selection']} and {prompts['held_out']} prompts; "
        "optimism: the gain over plain decoding on the selection half minus that on the held-out half"
    )


def mean_text(numbers: Mapping[str, Any]) -> str:
    """A mean with its interval, on two lines."""
    ends = interval(number(numbers, "low"), number(numbers, "high"))
    return f"{three_digits(number(numbers, 'mean'))}\n{ends}"


def difference_text(numbers: Mapping[str, Any]) -> str:
    """A difference with its interval, on two lines; a dash if there is none."""
    if not numbers:
        return "\N{EM DASH}"
    ends = interval(number(numbers, "low"), number(numbers, "high"))
    return f"{signed(number(numbers, 'difference'))}\n{ends}"


def number(numbers: Mapping[str, Any], name: str) -> float:
    """A number of a result; NaN if it is unknown."""
    value = numbers.get(name)
    return math.nan if value is None else float(value)


def search_verdict(result: Mapping[str, Any]) -> list[str]:
    """Sentences: what was tried, whether the best beats the hand-made setting, and the optimism."""
    chosen = [row for row in result["finalists"] if row["role"] == "chosen"]
    lines = [_counts(result)]
    if not chosen:
        lines.append("No trial has a value and keeps all limits, so nothing was chosen.")
        return [*lines, cost_in_words(result)]
    best, column = chosen[0], next(iter(result["aims"]))
    lines += filter(None, [_against_default(best, column, len(chosen)), _optimism(best, column)])
    broken = [row for row in chosen if row["broken"]]
    if broken:
        lines.append(
            f"On the held-out half {count(len(broken), 'chosen cell')} of {len(chosen)} did not keep a "
            "limit: " + "; ".join(f"{row['label']} ({', '.join(row['broken'])})" for row in broken) + "."
        )
    return [*lines, cost_in_words(result)]


def _counts(result: Mapping[str, Any]) -> str:
    trials = result["trials"]
    failed = [trial for trial in trials if trial["failure"]]
    beyond = sum(not trial["feasible"] for trial in trials) - len(failed)
    parts = [f"{count(len(trials), 'trial')} of {result['cost']['cells']} different cells"]
    parts += [f"{beyond} beyond a limit"] if beyond else []
    parts += [f"{len(failed)} failed (such as: {failed[0]['failure']})"] if failed else []
    return f"Search for {', '.join(result['objective'])}: {'; '.join(parts)}."


def _against_default(best: Mapping[str, Any], column: str, chosen: int) -> str:
    """Compare the best cell with the hand-made setting on the held-out half, in the first aim."""
    difference = best["numbers"][column]["over_default"]
    if not difference:
        return ""
    p = number(difference, "p_holm")
    shown = "differs from" if p < 0.05 else "is not shown to differ from"
    ends = interval(number(difference, "low"), number(difference, "high"))
    corrected = f" after correction for {count(chosen, 'chosen cell')}" if chosen > 1 else ""
    return (
        f"On the held-out half, the best in {column} ({best['label']}) {shown} the hand-made setting: "
        f"{signed(number(difference, 'difference'))} {ends}, {p_value(p)}{corrected}."
    )


def _optimism(best: Mapping[str, Any], column: str) -> str:
    numbers = best["numbers"][column]
    if not numbers["optimism"]:
        return ""
    gains = [
        f"{signed(number(numbers['gain'][half], 'difference'))} "
        f"{interval(number(numbers['gain'][half], 'low'), number(numbers['gain'][half], 'high'))}"
        for half in ("selection", "held_out")
    ]
    optimism = numbers["optimism"]
    return (
        f"Its gain over plain decoding: {gains[0]} on the half that it was chosen on, {gains[1]} on the "
        f"held-out half. Optimism of choosing: {signed(number(optimism, 'difference'))} "
        f"{interval(number(optimism, 'low'), number(optimism, 'high'))}."
    )


def cost_in_words(result: Mapping[str, Any]) -> str:
    """What choosing cost."""
    cost = result["cost"]
    return (
        f"Choosing cost {count(cost['texts'], 'text')}, {count(cost['tokens'], 'token')} and "
        f"{cost['seconds']:,.0f} s of decoding and scoring."
    )

"""Tables and figure of the study `search`: run `python -m experiments.search.analyse` after the sweep."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cfg_lab.analysis.style import COLOURS, FAINT, PAGE, in_style, new_figure
from cfg_lab.metrics import Length
from cfg_lab.search.both_halves import HALVES, Finalist, both_halves
from cfg_lab.search.objectives import Limit, Objectives
from cfg_lab.search.trials import results_of
from cfg_lab.study.aim import Aim
from cfg_lab.study.formats import p_value
from cfg_lab.study.store import Store
from experiments.record import Record, markdown_table, number_and_interval

ROLES = {"chosen": "", "default": " (hand-made)", "plain": ""}
METRICS = ("sentiment", "perplexity", "leakage", "relevance")


def main(record: Record) -> None:
    """Write the tables and the figure of the study."""
    result = read_result(record)
    scores = record.scores("search", METRICS, ["prompts.half"])
    rows = numbers_of(scores, result)
    record.table("halves", halves_table(rows))
    record.table("default", default_table(rows))
    record.table("cost", cost_table(result))
    record.figure("search", draw(rows, result))


def read_result(record: Record) -> dict[str, Any]:
    """The result of the search. If the results folder is there, a copy is kept in the record."""
    kept = record.folder / "result.json"
    results = results_of(Store(record.results / "search"))
    if results:
        kept.write_text(json.dumps(results[0], indent=1) + "\n", encoding="utf-8")
    return json.loads(kept.read_text(encoding="utf-8"))


def numbers_of(scores: pd.DataFrame, result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The numbers of the chosen cells and the references on both halves, from the scores of their texts."""
    finalists = [
        Finalist(role=row["role"], label=row["label"], trial=row["trial"], cells=row["cells"])
        for row in result["finalists"]
    ]
    objectives = Objectives(
        # The scores are there, so no metric is called: any one will do.
        aims=(Aim(column="sentiment", better="higher", metric=Length()),),
        limits=(
            Limit(text="perplexity<=1.2x", column="perplexity", is_upper=True, bound=1.2, is_relative=True),
        ),
    )
    cells = {cell for one in finalists for cell in one.cells.values()}
    return both_halves(scores[scores["cell"].isin(cells)], finalists, objectives)


def halves_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means of every finalist on both halves, its gains over plain decoding, and the optimism."""
    table: list[list[str]] = []
    for row in rows:
        sentiment, perplexity = row["numbers"]["sentiment"], row["numbers"]["perplexity"]
        table.append(
            [
                f"{row['label']}{ROLES[row['role']]}",
                *(with_interval(sentiment[half], "mean") for half in HALVES),
                *(with_interval(sentiment["gain"][half], "difference") for half in HALVES),
                with_interval(sentiment["optimism"], "difference"),
                *(with_interval(perplexity[half], "mean") for half in HALVES),
                "no" if row["broken"] else "yes",
            ]
        )
    header = ["cell", "sentiment, selection", "held-out", "gain, selection", "gain, held-out", "optimism"]
    header += ["perplexity, selection", "held-out", "keeps the limit on held-out"]
    return markdown_table(header, table)


def default_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Differences of the chosen cells from the hand-made default on the held-out half."""
    table = [
        [
            row["label"],
            str(row["numbers"]["sentiment"]["held_out"]["n"]),
            with_interval(row["numbers"]["sentiment"]["over_default"], "difference"),
            p_value(row["numbers"]["sentiment"]["over_default"]["p_holm"]),
            with_interval(row["numbers"]["perplexity"]["over_default"], "difference"),
        ]
        for row in rows
        if row["role"] == "chosen"
    ]
    return markdown_table(["cell", "n", "sentiment − default", "corrected", "perplexity − default"], table)


def cost_table(result: Mapping[str, Any]) -> str:
    """What choosing cost, and how many trials kept the limit."""
    cost, trials = result["cost"], result["trials"]
    row = [len(trials), cost["cells"], sum(trial["feasible"] for trial in trials)]
    row += [cost["texts"], cost["tokens"], round(cost["seconds"] / 60)]
    header = ["trials", "different cells", "kept the limit", "texts", "tokens", "minutes"]
    return markdown_table(header, [[str(number) for number in row]])


def with_interval(numbers: Mapping[str, Any], name: str) -> str:
    """A number with its interval; a dash if it is unknown."""
    if numbers.get(name) is None:
        return "–"
    low, high = (float("nan") if numbers[end] is None else numbers[end] for end in ("low", "high"))
    return number_and_interval(numbers[name], low, high, sign=name == "difference")


@in_style
def draw(rows: Sequence[Mapping[str, Any]], result: Mapping[str, Any]) -> Figure:
    """Left: sentiment of all trials in their order. Right: gains over plain decoding on both halves."""
    figure = new_figure(PAGE, 2.4)
    history, gains = figure.subplots(1, 2, width_ratios=[1, 1.2])
    trials = [trial for trial in result["trials"] if trial["means"]]
    for kept, fill in ((True, COLOURS[0]), (False, "white")):
        chosen = [trial for trial in trials if trial["feasible"] == kept]
        history.plot(
            [trial["number"] + 1 for trial in chosen],
            [trial["means"]["sentiment"] for trial in chosen],
            "o",
            color=COLOURS[0],
            markerfacecolor=fill,
            markersize=3,
            label="keeps the limit" if kept else "beyond the limit",
        )
    history.set_xlabel("trial")
    history.set_ylabel("sentiment, selection half")
    history.legend(frameon=False, fontsize=6)
    guided = [row for row in rows if row["role"] != "plain"]
    for height, row in enumerate(reversed(guided)):
        for offset, half, colour in ((0.12, "selection", COLOURS[1]), (-0.12, "held_out", COLOURS[0])):
            gain = row["numbers"]["sentiment"]["gain"][half]
            if gain.get("difference") is None:
                continue
            if gain.get("low") is not None:
                gains.plot([gain["low"], gain["high"]], [height + offset] * 2, color=colour)
            label = half.replace("_", "-") if height == 0 else None
            gains.plot(gain["difference"], height + offset, "o", color=colour, markersize=3, label=label)
    gains.axvline(0, color=FAINT, linewidth=0.6)
    gains.set_yticks(range(len(guided)), [row["label"] for row in reversed(guided)], fontsize=6)
    gains.xaxis.set_major_locator(MaxNLocator(5))
    gains.set_xlabel("sentiment − plain decoding")
    gains.legend(frameon=False, fontsize=6)
    return figure


if __name__ == "__main__":
    main(Record.of_command_line("search"))

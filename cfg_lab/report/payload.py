"""The data of a page as one JSON value. Tables are stored as columns, and repeated values as indices.

`js/types.d.ts` describes the same value for the type checker of the page's scripts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import SCALE
from cfg_lab.decoding.trace import DISTRIBUTIONS
from cfg_lab.report.answer import VERDICTS
from cfg_lab.report.axes import PROMPT_KEY, Axis, Cells, prompts_of, row_dicts
from cfg_lab.report.change import Comparisons
from cfg_lab.report.roles import Roles
from cfg_lab.report.shown_texts import ShownTexts
from cfg_lab.report.token_packs import Completion, Packs, pack_tokens
from cfg_lab.report.trace_columns import CHANGE_BY_GUIDANCE, trace_fields
from cfg_lab.study.formats import compact
from cfg_lab.study.notebook_html import LEVELS

MOST_PAIRED = 8  # number of metrics that the trade-off figure offers; they make 28 pairs, each with its front

CHANGE_NUMBERS = ("difference", "low", "high", "p", "p_holm", "effect", "needed")


def cells_payload(results: pd.DataFrame, cells: Cells, comparisons: Comparisons) -> dict[str, Any]:
    """Return the axes (settings that vary), and the settings, name, baseline and text count of each cell."""
    baselines = {change.cell: change.baseline for change in comparisons.primary + comparisons.others}
    baselines |= {baseline: baseline for baseline in set(baselines.values())}
    texts = results["cell"].astype(str).value_counts()
    numbers = range(len(cells.ids))
    return {
        "axes": [
            {
                "key": axis.key,
                "name": axis.name,
                "title": _title(axis),
                "values": list(axis.values),
                "numeric": axis.numeric,
            }
            for axis in cells.axes
        ],
        "curve_axis": cells.curve_axis,
        "cells": {
            "id": list(cells.ids),
            "label": cells.labels,
            "point": [list(point) for point in cells.points],
            "texts": [int(texts[cell]) for cell in cells.ids],
            "baseline": [baselines.get(number) for number in numbers],
            "unguided": [number in cells.unguided for number in numbers],
        },
        "verdicts": VERDICTS,
    }


def metrics_payload(
    metrics: Sequence[str], summary: pd.DataFrame, comparisons: Comparisons, roles: Roles, cells: Cells
) -> list[dict[str, Any]]:
    """Return each metric's role on the page (aim, price or neither), and its numbers in all cells.

    The numbers are lists with one entry per cell: mean, interval, n and change.
    """
    rows = {str(row["cell"]): row for row in row_dicts(summary)}
    return [
        {
            "name": metric,
            "better": analysis.better(metric),
            "role": "aim" if metric in roles.aims else "price" if metric in roles.prices else "other",
            "mean": [compact(rows[cell][metric]) for cell in cells.ids],
            "low": [compact(rows[cell][f"{metric}_low"]) for cell in cells.ids],
            "high": [compact(rows[cell][f"{metric}_high"]) for cell in cells.ids],
            "n": [int(rows[cell][f"{metric}_n"]) for cell in cells.ids],
            "change": _changes(metric, comparisons, len(cells.ids)),
        }
        for metric in metrics
    ]


def fronts_payload(results: pd.DataFrame, cells: Cells, roles: Roles) -> list[dict[str, Any]]:
    """Return the Pareto front of each pair of metrics.

    A cell is on the front if no other cell is better in both metrics. Only metrics that declare a better
    direction are paired, at most MOST_PAIRED metrics.
    """
    directed = [
        name
        for name in (*roles.primary, *roles.others)
        if analysis.better(name) and results[name].notna().any()
    ]
    index = cells.index
    fronts: list[dict[str, Any]] = []
    pairs = [(x, y) for y, x in combinations(directed[:MOST_PAIRED], 2)]
    for (x, y), front in analysis.pareto_fronts(results, pairs):
        on_front = [False] * len(index)
        probability: list[float | None] = [None] * len(index)
        for row in row_dicts(front):
            cell = index[str(row["cell"])]
            on_front[cell] = bool(row["on_front"])
            probability[cell] = compact(row["probability"], 3)
        fronts.append({"x": x, "y": y, "on_front": on_front, "probability": probability})
    return fronts


def texts_payload(
    shown: ShownTexts,
    cells: Cells,
    metrics: Sequence[str],
    text_budget: int,
    token_budget: int,
    first_cells: Collection[int] = (),
) -> tuple[dict[str, Any], Packs]:
    """Return the texts and the packs, which hold the tokens of the texts as compressed data.

    A text that several cells share is stored once. Texts are added in groups. A group holds the texts of one
    sample of one prompt in all cells. The first sample of every prompt
    comes before the second sample of any prompt. Once the texts have `text_budget` characters, no group is
    added.

    Args:
        shown: the texts.
        cells: all cells.
        metrics: names of the metrics whose scores stand beside a text.
        text_budget, token_budget: as in `document`.
        first_cells: numbers of the cells whose tokens are shown first, in case that not all can be shown.
    """
    results = shown.rows
    prompts = prompts_of(results)
    cell_index = cells.index
    rows: dict[str, list[int]] = {name: [] for name in ("cell", "prompt", "sample", "completion")}
    completion_index: dict[tuple[str, int], int] = {}
    completions: list[pd.Series[Any]] = []
    groups: list[list[Completion]] = []
    first_ids: set[str] = set()
    size = left_out = 0
    for prompt, group in _groups(results):
        if size >= text_budget:
            left_out += len(group)
            continue
        first = len(completions)
        for _, row in group.iterrows():
            key = (str(row["completion"]), prompt)
            if key not in completion_index:
                completion_index[key] = len(completions)
                completions.append(row)
                size += len(str(row["text"]))
            rows["cell"].append(cell_index[str(row["cell"])])
            rows["prompt"].append(prompt)
            rows["sample"].append(int(row["sample"]))
            rows["completion"].append(completion_index[key])
            if rows["cell"][-1] in first_cells:
                first_ids.add(str(row["completion"]))
        groups.append(
            [
                (number, str(completions[number]["completion"]))
                for number in range(first, len(completions))
                if len(completions[number]["tokens"])
            ]
        )
    packs = pack_tokens(groups, shown.traces, token_budget, first_ids)
    payload = {
        "prompts": {
            "id": list(map(str, prompts["prompt_id"])),
            "text": list(map(str, prompts["prompt"])),
            "negative": _negatives(results),
        },
        "rows": rows,
        "completions": {
            "text": [str(row["text"]) for row in completions],
            "finish": [str(row["finish_reason"]) for row in completions],
            "tokens": [len(row["tokens"]) for row in completions],
            "pack": [packs.pack_of.get(number) for number in range(len(completions))],
            "scores": {metric: [compact(row[metric], 4) for row in completions] for metric in metrics},
        },
        "texts_left_out": left_out,
        "texts_shown": shown.sentence,
        "tokens": {
            "available": bool(packs.pack_of),
            "alternatives": packs.alternatives,
            "note": packs.note,
            "levels": list(LEVELS),
            "fields": trace_fields(),
            "distributions": list(DISTRIBUTIONS),
            "change": list(CHANGE_BY_GUIDANCE),
        },
    }
    return payload, packs


def _title(axis: Axis) -> str:
    """Return the title of an axis in a figure."""
    return "guidance scale \N{GREEK SMALL LETTER GAMMA}, 1 is off" if axis.key == SCALE else axis.key


def _groups(results: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """Yield, for each sample and prompt, the prompt's number and the prompt's rows in all cells.

    The first sample of every prompt comes before the second sample of any prompt.
    """
    numbers = results.groupby(PROMPT_KEY, sort=False).ngroup().to_numpy()
    groups: Any = results.groupby([results["sample"].to_numpy(), numbers], sort=True)
    for (_, prompt), group in groups:
        yield int(prompt), group


def _negatives(results: pd.DataFrame) -> list[str]:
    """Return the negative phrases of each prompt; "" if a prompt has none.

    If a cell has negative phrases, the results have the cell's phrases in place of the prompt's phrases. If
    cells differ in the phrases of a prompt, all different phrases are joined.
    """
    if "prompt_negative" not in results:
        return []
    by_prompt = results.groupby(PROMPT_KEY, sort=False)["prompt_negative"].unique()
    return [" · ".join(text for text in texts if isinstance(text, str) and text) for texts in by_prompt]


def _changes(metric: str, comparisons: Comparisons, cells: int) -> dict[str, list[Any]]:
    """Return how a metric differs from the baselines: lists with one entry per cell.

    The entry is None for a cell that is not compared with a baseline.
    """
    changes = {change.cell: change for change in comparisons.of(metric)}
    by_cell = [changes.get(number) for number in range(cells)]
    columns: dict[str, list[Any]] = {
        name: [compact(getattr(change, name)) if change else None for change in by_cell]
        for name in CHANGE_NUMBERS
    }
    return columns | {"verdict": [change.verdict if change else None for change in by_cell]}

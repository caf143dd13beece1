"""The data of a page as one JSON value: columns, with repeated values as indices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Any

import pandas as pd

from cfg_lab import analysis
from cfg_lab.report.axes import PROMPT, Cells, prompts_of, records
from cfg_lab.report.findings import Change, Compared
from cfg_lab.report.roles import Roles
from cfg_lab.report.token_packs import Packs, pack_tokens
from cfg_lab.study.formats import compact
from cfg_lab.study.notebook_html import LEVELS

MOST_PAIRED = 8  # metrics that the trade-off offers against each other: 28 fronts are bootstrapped


def cells_payload(results: pd.DataFrame, cells: Cells, compared: Compared) -> dict[str, Any]:
    """Settings, name, baseline and number of texts of each cell."""
    baseline = {change.cell: change.baseline for change in compared.primary + compared.others}
    counts = results["cell"].astype(str).value_counts()
    unguided = set(baseline.values())
    return {
        "axes": [
            {"key": axis.key, "name": axis.name, "values": list(axis.values), "numeric": axis.numeric}
            for axis in cells.axes
        ],
        "cells": {
            "id": list(cells.ids),
            "label": cells.labels,
            "at": [list(point) for point in cells.points],
            "texts": [int(counts[cell]) for cell in cells.ids],
            # a cell that others are compared with is its own baseline; -1: has none
            "baseline": [
                baseline.get(place, place if place in unguided else -1) for place in range(len(cells.ids))
            ],
        },
    }


def metrics_payload(
    metrics: Sequence[str], summary: pd.DataFrame, compared: Compared, roles: Roles, cells: Cells
) -> list[dict[str, Any]]:
    """Of each metric: its role, its means with intervals, and its differences, by cell."""
    rows = {str(row["cell"]): row for row in records(summary)}
    changes = {metric: {change.cell: change for change in compared.of(metric)} for metric in metrics}
    return [
        {
            "name": metric,
            "better": analysis.better(metric),
            "role": "aim" if metric in roles.aims else "price" if metric in roles.prices else "other",
            "mean": [compact(rows[cell][metric]) for cell in cells.ids],
            "low": [compact(rows[cell][f"{metric}_low"]) for cell in cells.ids],
            "high": [compact(rows[cell][f"{metric}_high"]) for cell in cells.ids],
            "n": [int(rows[cell][f"{metric}_n"]) for cell in cells.ids],
            "change": [_change(changes[metric].get(place)) for place in range(len(cells.ids))],
        }
        for metric in metrics
    ]


def fronts_payload(results: pd.DataFrame, cells: Cells, roles: Roles) -> list[dict[str, Any]]:
    """The Pareto front of each pair of metrics that have a better direction."""
    directed = [
        name
        for name in (*roles.primary, *roles.others)
        if analysis.better(name) and results[name].notna().any()
    ]
    place = {cell: number for number, cell in enumerate(cells.ids)}
    fronts: list[dict[str, Any]] = []
    for y, x in combinations(directed[:MOST_PAIRED], 2):
        table = analysis.pareto(
            results,
            x,
            y,
        )
        on: list[int] = [0] * len(place)
        probability: list[float | None] = [None] * len(place)
        for row in records(table):
            on[place[str(row["cell"])]] = int(bool(row["on_front"]))
            probability[place[str(row["cell"])]] = compact(row["probability"], 3)
        fronts.append({"x": x, "y": y, "on": on, "probability": probability})
    return fronts


def texts_payload(
    results: pd.DataFrame, cells: Cells, metrics: Sequence[str], text_budget: int, token_budget: int
) -> tuple[dict[str, Any], Packs]:
    """Texts, each once however many cells count it, and their packed token views.

    Texts are taken in the order of samples, and of prompts within a sample, all cells of a prompt together,
    until text_budget bytes of them are there.
    """
    prompts = prompts_of(results)
    cell_place = {cell: number for number, cell in enumerate(cells.ids)}
    rows: dict[str, list[int]] = {name: [] for name in ("cell", "prompt", "sample", "completion")}
    place: dict[tuple[str, int], int] = {}
    unique: list[pd.Series[Any]] = []
    groups: list[list[int]] = []
    spent = left_out = 0
    for prompt, group in _groups(results):
        if spent >= text_budget:
            left_out += len(group)
            continue
        begin = len(unique)
        for _, row in group.iterrows():
            key = (str(row["completion"]), prompt)
            if key not in place:
                place[key] = len(unique)
                unique.append(row)
                spent += len(str(row["text"]))
            rows["cell"].append(cell_place[str(row["cell"])])
            rows["prompt"].append(prompt)
            rows["sample"].append(int(row["sample"]))
            rows["completion"].append(place[key])
        groups.append(list(range(begin, len(unique))))
    packs = pack_tokens(([(number, unique[number]) for number in group] for group in groups), token_budget)
    payload = {
        "prompts": {
            "id": list(map(str, prompts["prompt_id"])),
            "text": list(map(str, prompts["prompt"])),
            "negative": _negatives(results),
        },
        "rows": rows,
        "completions": {
            "text": [str(row["text"]) for row in unique],
            "finish": [str(row["finish_reason"]) for row in unique],
            "tokens": [len(row["tokens"]) for row in unique],
            "pack": [packs.where.get(number, -1) for number in range(len(unique))],
            "scores": {metric: [compact(row[metric], 4) for row in unique] for metric in metrics},
        },
        "texts_left_out": left_out,
        "tokens": {
            "kept": bool(packs.where),
            "alternatives": packs.alternatives,
            "note": packs.note,
            "levels": list(LEVELS),
        },
    }
    return payload, packs


def _groups(results: pd.DataFrame) -> Iterator[tuple[int, pd.DataFrame]]:
    """The number of each prompt, and its rows of one sample over all cells; by sample, then prompt."""
    places = results.groupby(PROMPT, sort=False).ngroup().to_numpy()
    groups: Any = results.groupby([results["sample"].to_numpy(), places], sort=True)
    for (_, prompt), group in groups:
        yield int(prompt), group


def _negatives(results: pd.DataFrame) -> list[str]:
    """The phrases that each prompt is steered away from; cells with phrases of their own have others."""
    if "prompt_negative" not in results:
        return []
    found = results.groupby(PROMPT, sort=False)["prompt_negative"].unique()
    return [" · ".join(one for one in phrases if isinstance(one, str) and one) for phrases in found]


def _change(change: Change | None) -> list[Any] | None:
    """[difference, low, high, corrected p, verdict, p, effect, needed], None where nothing is compared."""
    if change is None:
        return None
    numbers = (change.difference, change.low, change.high, change.p_holm)
    more = (change.p, change.effect, change.needed)
    return [*map(compact, numbers), change.verdict, *map(compact, more)]

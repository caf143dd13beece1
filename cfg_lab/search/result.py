"""The result of a search as JSON data: everything that the table and the page show of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cfg_lab.search.both_halves import HALVES, Finalist, both_halves
from cfg_lab.search.definition import Search
from cfg_lab.search.trials import Trial
from cfg_lab.study.results import load_results
from cfg_lab.study.store import Store


def label(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{key.removeprefix('guidance.').lstrip('+')} {text}" for key, text in texts.items())


def label_of(overrides: Sequence[str]) -> str:
    pairs = [line.partition("=") for line in overrides]
    return label({key: value for key, _, value in pairs})


def definition_in_words(chosen: Search) -> dict[str, Any]:
    """What is searched, for a person who looks at the folder."""
    problem = chosen.problem
    return {
        "space": [repr(parameter) for parameter in problem.space],
        "objective": problem.objectives.texts,
        "fixed": list(chosen.fixed),
        "settings": vars(problem.settings),
    }


def result_of(
    chosen: Search, search_id: str, store: Store, trials: Sequence[Trial], finalists: Sequence[Finalist]
) -> dict[str, Any]:
    """Everything that the table and the page show of a search, as JSON data."""
    objectives = chosen.problem.objectives
    ids = {cell for finalist in finalists for cell in finalist.cells.values()}
    results = load_results(store.root, columns=objectives.columns, cells=ids)
    return {
        "search": search_id,
        "objective": objectives.texts,
        "columns": objectives.columns,
        "aims": {aim.column: aim.better for aim in objectives.aims},
        "space": _space_in_words(chosen),
        "settings": vars(chosen.problem.settings),
        "prompts": {
            half: _prompts(results, {finalist.cells[half] for finalist in finalists}) for half in HALVES
        },
        "finalists": both_halves(results, finalists, objectives),
        "trials": [
            {
                "number": trial.number,
                "label": label(trial.texts),
                "means": dict(trial.evaluation.means),
                "feasible": trial.is_feasible,
                "failure": trial.evaluation.failure,
                "cell": trial.evaluation.cell,
            }
            for trial in trials
        ],
        "cost": _cost(store, trials),
    }


def _space_in_words(chosen: Search) -> dict[str, str]:
    """Key of each parameter -> its values, such as "1 to 5"."""
    words: dict[str, str] = {}
    for parameter in chosen.problem.space:
        ends = parameter.ends
        is_range = len(ends) < parameter.size
        words[parameter.key] = f"{ends[0]} to {ends[-1]}" if is_range else ", ".join(ends)
    return words


def _prompts(results: pd.DataFrame, cells: set[str]) -> int:
    return int(results.loc[results["cell"].isin(cells), "prompt_id"].nunique())


def _cost(store: Store, trials: Sequence[Trial]) -> dict[str, float]:
    """What choosing cost: texts and tokens of all trials, each once, and the seconds of their batches."""
    cells = {trial.evaluation.cell for trial in trials}
    results = load_results(store.root, columns=["tokens"], cells=cells)
    return {
        "cells": len(cells),
        "texts": int(results["completion"].nunique()),
        "tokens": int(results.drop_duplicates("completion")["tokens"].map(len).sum()),
        "seconds": round(sum(trial.evaluation.seconds for trial in trials), 1),
    }

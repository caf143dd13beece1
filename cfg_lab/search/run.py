"""Running a search: trials on the selection half of the prompts, then the best of them on the other half."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, cast

import pandas as pd
from filelock import FileLock, Timeout
from rich.console import Console

from cfg_lab.analysis import summary
from cfg_lab.errors import InputError
from cfg_lab.metrics import scorer_key
from cfg_lab.search.both_halves import HALVES, Finalist, both_halves
from cfg_lab.search.loop import Problem, search
from cfg_lab.search.proposals import ranked
from cfg_lab.search.trials import Evaluation, Trial, TrialFolder
from cfg_lab.study.cell import Study
from cfg_lab.study.formats import count
from cfg_lab.study.results import load_results
from cfg_lab.study.store import Store

PLAIN = ("guidance=cfg", "guidance.scale=1", "negatives=empty")
"""Overrides of decoding without guidance."""

Jobs = Sequence[Sequence[str]]
"""For each cell, its overrides."""


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search of the space of a command line.

    Attributes:
        problem: space, objectives and settings.
        fixed: the overrides that all trials share.
        trials: number of trials, at least 1.
        finalists: largest number of chosen cells that are decoded on the held-out half, at least 1.
        default: overrides of the hand-made setting that the chosen cells are compared with; may be empty.
        study_of: makes the study whose cells have the given overrides.
        decode: decodes and scores a study.
    """

    problem: Problem
    fixed: tuple[str, ...]
    trials: int
    finalists: int
    default: tuple[str, ...]
    study_of: Callable[[Jobs], Study]
    decode: Callable[[Study], None]

    def job(self, texts: Mapping[str, str], half: str) -> list[str]:
        """The overrides of a trial."""
        return [*self.fixed, *(f"{key}={text}" for key, text in texts.items()), f"prompts.half={half}"]

    def reference(self, texts: Mapping[str, str], setting: Sequence[str], half: str) -> list[str]:
        """The overrides of a trial with the guidance and negatives of another setting."""
        kept = [line for line in self.job(texts, half) if group_of(line) not in ("guidance", "negatives")]
        return [*kept, *setting]

    def references(self, texts: Mapping[str, str], half: str) -> list[list[str]]:
        """The overrides of plain decoding and of the hand-made setting, for the other settings of a trial."""
        settings = [PLAIN, *([self.default] if self.default else [])]
        return [self.reference(texts, setting, half) for setting in settings]


def group_of(override: str) -> str:
    """The config group that an override belongs to: "guidance" for "+guidance.scale=2"."""
    return re.split("[./@=]", override.lstrip("+~"), maxsplit=1)[0]


def identity_of(problem: Problem, first: Study) -> str:
    """The id of a search: a hash of everything that the values of its trials depend on.

    Args:
        problem: what is searched.
        first: a study of one trial, which has all settings that are not searched, and the metrics.
    """
    settings = problem.settings
    content = [
        [cell.identity for cell in first.cells],
        [repr(parameter) for parameter in problem.space],
        problem.objectives.texts,
        sorted({scorer_key(aim.metric) for aim in problem.objectives.aims}),
        [settings.sampler, settings.seed, settings.batch, settings.startup],
    ]
    return blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()


def run_search(chosen: Search, search_id: str, store: Store, console: Console) -> tuple[dict[str, Any], Jobs]:
    """Make all trials, decode the best of them and the references on the held-out half, and store the result.

    Returns:
        The result (see `_result`), and the overrides of the cells of the held-out half.

    Raises:
        InputError, StoreError, NotANumberError: as `run_study`.
    """
    folder = TrialFolder(store=store, search=search_id)
    store.check_version()
    store.check_writable()
    folder.path.mkdir(parents=True, exist_ok=True)
    with _alone(folder, console):
        folder.write_json("definition.json", _definition(chosen))
        evaluate = _Evaluator(chosen, store, console)
        trials = search(chosen.problem, folder, chosen.trials, evaluate)
        best = _spread(ranked(chosen.problem.space, chosen.problem.objectives, trials), chosen)
        finalists, jobs = _on_both_halves(chosen, best, trials, console)
        result = _result(chosen, search_id, store, trials, finalists)
        folder.write_json("result.json", result)
    return result, jobs["held_out"]


class _Evaluator:
    """Decodes batches of trials on the selection half, and computes their means."""

    def __init__(self, chosen: Search, store: Store, console: Console) -> None:
        self.chosen, self.store, self.console = chosen, store, console
        self.began, self.done = time.monotonic(), 0

    def __call__(self, first: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
        """See `loop.Evaluate`."""
        began = time.monotonic()
        chosen, objectives = self.chosen, self.chosen.problem.objectives
        self._say(first, len(points))
        jobs = [chosen.job(point, "selection") for point in points]
        plain_jobs = [chosen.references(point, "selection")[0] for point in points]
        others = [job for point in points for job in chosen.references(point, "selection")]
        distinct = list({tuple(job): list(job) for job in [*jobs, *others]}.values())
        study = chosen.study_of(distinct)
        chosen.decode(study)
        cells = {tuple(job): cell.id for job, cell in zip(distinct, study.cells, strict=True)}
        rows = _means(self.store, objectives.columns, set(cells.values()))
        seconds = (time.monotonic() - began) / len(points)
        self.done += len(points)
        return [
            _evaluation(rows, cells[tuple(job)], cells[tuple(plain)], chosen, seconds)
            for job, plain in zip(jobs, plain_jobs, strict=True)
        ]

    def _say(self, first: int, size: int) -> None:
        total = self.chosen.trials
        left = (total - first) * (time.monotonic() - self.began) / self.done if self.done else 0.0
        ending = f", about {left:.0f} s left" if left else ""
        self.console.print(
            f"trials {first + 1} to {first + size} of {total}, on the selection half{ending}", highlight=False
        )


def _evaluation(
    rows: Mapping[str, Mapping[str, Any]], cell: str, plain: str, chosen: Search, seconds: float
) -> Evaluation:
    """The evaluation of a trial: failed if a mean is unknown, or if most texts have no score."""
    columns = chosen.problem.objectives.columns
    for column in columns:
        for name, row in (("", rows[cell]), ("plain decoding: ", rows[plain])):
            scored, texts = int(row[f"{column}_n"]), int(row["texts"])
            if not math.isfinite(row[column]) or 2 * scored < texts:
                failure = f"{name}{column} has a score for {scored} of {count(texts, 'text')}"
                return Evaluation(failure=failure, cell=cell, seconds=seconds)
    means, of_plain = (
        # Scores differ in their last digits with the texts that are scored beside them.
        {column: float(f"{rows[row][column]:.6g}") for column in columns}
        for row in (cell, plain)
    )
    violations = chosen.problem.objectives.violations(means, of_plain)
    return Evaluation(means=means, violations=violations, cell=cell, seconds=seconds)


def _means(store: Store, columns: Sequence[str], cells: set[str]) -> dict[str, Mapping[str, Any]]:
    """Rows of the summary by the id of the cell. A column without any score is NaN."""
    known = [column for column in columns if column in store.score_columns()]
    results = load_results(store.root, columns=known, cells=cells)
    for column in columns:
        if column not in results:
            results[column] = math.nan
    rows = cast("list[dict[str, Any]]", summary(results, columns, []).to_dict("records"))
    return {str(row["cell"]): row for row in rows}


def _spread(best: list[Trial], chosen: Search) -> list[Trial]:
    """At most `chosen.finalists` trials: the best, or of a front those spread evenly over its order."""
    most = chosen.finalists
    if len(best) <= most:
        return best
    if len(chosen.problem.objectives.aims) == 1 or most == 1:
        return best[:most]
    return [best[round(number * (len(best) - 1) / (most - 1))] for number in range(most)]


def _on_both_halves(
    chosen: Search, best: Sequence[Trial], trials: Sequence[Trial], console: Console
) -> tuple[list[Finalist], dict[str, list[list[str]]]]:
    """Decode the chosen trials and the references of the first of them on the held-out half."""
    texts = (best[0] if best else trials[0]).texts
    jobs = {
        half: [
            *(chosen.job(trial.texts, half) for trial in best),
            *reversed(chosen.references(texts, half)),  # the hand-made setting, then plain decoding
        ]
        for half in HALVES
    }
    roles = ["chosen"] * len(best) + ["default"] * bool(chosen.default) + ["plain"]
    console.print(
        f"{count(len(jobs['held_out']), 'cell')} on the held-out half: "
        f"{len(best)} chosen, and the references",
        highlight=False,
    )
    cells: dict[str, list[str]] = {}
    for half in HALVES:
        distinct = {tuple(job): job for job in jobs[half]}
        study = chosen.study_of(list(distinct.values()))
        chosen.decode(study)  # decodes nothing of the selection half, unless its files were deleted
        ids = {job: cell.id for job, cell in zip(distinct, study.cells, strict=True)}
        cells[half] = [ids[tuple(job)] for job in jobs[half]]
    labels = [*(_label(trial.texts) for trial in best)]
    labels += [*([_label_of(chosen.default)] if chosen.default else []), "plain decoding"]
    numbers = [*(trial.number for trial in best), *([None] * (len(roles) - len(best)))]
    finalists = [
        Finalist(role=role, label=label, trial=number, cells={half: cells[half][row] for half in HALVES})
        for row, (role, label, number) in enumerate(zip(roles, labels, numbers, strict=True))
    ]
    return finalists, jobs


def _label(texts: Mapping[str, str]) -> str:
    return ", ".join(f"{key.removeprefix('guidance.').lstrip('+')} {text}" for key, text in texts.items())


def _label_of(overrides: Sequence[str]) -> str:
    pairs = [line.partition("=") for line in overrides]
    return _label({key: value for key, _, value in pairs})


def _definition(chosen: Search) -> dict[str, Any]:
    """What is searched, for a person who looks at the folder."""
    problem = chosen.problem
    return {
        "space": [repr(parameter) for parameter in problem.space],
        "objective": problem.objectives.texts,
        "fixed": list(chosen.fixed),
        "settings": vars(problem.settings),
    }


def _result(
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
                "label": _label(trial.texts),
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


def _alone(folder: TrialFolder, console: Console) -> FileLock:
    """A lock that one process of a search holds. Others wait; then little is left to do for them."""
    lock = FileLock(folder.path / ".lock")
    try:
        lock.acquire(blocking=False)
        lock.release()
    except Timeout:
        console.print(
            f"another process works on this search ({folder.path}); waiting until it has ended",
            markup=False,
            highlight=False,
            soft_wrap=True,
        )
    return lock


def check_space(chosen: Search) -> None:
    """Check that a search makes sense before anything is written.

    Raises:
        InputError: a searched key cannot be searched, or the space has too few points.
    """
    from cfg_lab.search.space import size

    if not chosen.problem.space:
        raise InputError(
            "hydra/sweeper=optuna has nothing to search; give a key several values, such as "
            "'guidance.scale=interval(1,5)' or guidance=cfg,union"
        )
    for parameter in chosen.problem.space:
        group = group_of(parameter.key)
        if group in ("prompts", "seed", "samples", "metrics", "experiment", "size", "size_of_sweep"):
            raise InputError(
                f"{parameter.key} cannot be searched, because the values of trials could not be compared; "
                f"give {parameter.key} one value"
            )
    points = size(chosen.problem.space)
    if points <= chosen.trials:
        raise InputError(
            f"trials is {chosen.trials}, but the space has only {points:.0f} points; leave hydra/sweeper "
            "unset, which tries every one, or set fewer trials"
        )

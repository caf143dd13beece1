"""Running a search: trials on the selection half of the prompts, then the best of them on the other half."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from filelock import FileLock, Timeout
from rich.console import Console

from cfg_lab.search.both_halves import HALVES, Finalist
from cfg_lab.search.definition import Jobs, Search
from cfg_lab.search.evaluation import evaluation_of, rows_by_cell
from cfg_lab.search.loop import search
from cfg_lab.search.proposals import ranked
from cfg_lab.search.result import definition_in_words, label, label_of, result_of
from cfg_lab.search.trials import Evaluation, Trial, TrialFolder
from cfg_lab.study.formats import count
from cfg_lab.study.results import load_results
from cfg_lab.study.store import Store


def run_search(chosen: Search, search_id: str, store: Store, console: Console) -> tuple[dict[str, Any], Jobs]:
    """Make all trials, decode the best of them and the references on the held-out half, and store the result.

    Returns:
        The result (see `result_of`), and the overrides of the cells of the held-out half.

    Raises:
        InputError, StoreError, NotANumberError: as `run_study`.
    """
    folder = TrialFolder(store=store, search=search_id)
    store.check_version()
    store.check_writable()
    folder.path.mkdir(parents=True, exist_ok=True)
    with _alone(folder, console):
        folder.write_json("definition.json", definition_in_words(chosen))
        evaluate = _Evaluator(chosen, store, console)
        trials = search(chosen.problem, folder, chosen.trials, evaluate)
        best = _spread(ranked(chosen.problem.space, chosen.problem.objectives, trials), chosen)
        finalists, jobs = _on_both_halves(chosen, best, trials, console)
        result = result_of(chosen, search_id, store, trials, finalists)
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
        known = [column for column in objectives.columns if column in self.store.score_columns()]
        results = load_results(self.store.root, columns=known, cells=set(cells.values()))
        rows = rows_by_cell(results, objectives.columns)
        seconds = (time.monotonic() - began) / len(points)
        self.done += len(points)
        return [
            evaluation_of(objectives, rows[cells[tuple(job)]], rows[cells[tuple(plain)]], seconds)
            for job, plain in zip(jobs, plain_jobs, strict=True)
        ]

    def _say(self, first: int, size: int) -> None:
        total = self.chosen.trials
        left = (total - first) * (time.monotonic() - self.began) / self.done if self.done else 0.0
        ending = f", about {left:.0f} s left" if left else ""
        self.console.print(
            f"trials {first + 1} to {first + size} of {total}, on the selection half{ending}", highlight=False
        )


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
    labels = [*(label(trial.texts) for trial in best)]
    labels += [*([label_of(chosen.default)] if chosen.default else []), "plain decoding"]
    numbers = [*(trial.number for trial in best), *([None] * (len(roles) - len(best)))]
    finalists = [
        Finalist(role=role, label=label, trial=number, cells={half: cells[half][row] for half in HALVES})
        for row, (role, label, number) in enumerate(zip(roles, labels, numbers, strict=True))
    ]
    return finalists, jobs


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

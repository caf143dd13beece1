"""The search for rule, negative and scale on the selection half, as long as there is time."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from cfg_lab.choose.settings import ChooseSettings
from cfg_lab.search.evaluation import evaluation_of, rows_by_cell
from cfg_lab.search.loop import Problem, search
from cfg_lab.search.objectives import Objectives
from cfg_lab.search.space import Choice, Parameter
from cfg_lab.search.trials import Evaluation, TrialFolder
from cfg_lab.study.formats import count
from cfg_lab.study.store import Store
from cfg_lab.suggest.cells import PLAIN, Bench, CellPlan


@dataclass(frozen=True, kw_only=True)
class Tried:
    """A setting that was tried on the selection half.

    Attributes:
        plan: the setting.
        evaluation: the means of its columns, and how far it is beyond each limit.
    """

    plan: CellPlan
    evaluation: Evaluation

    @property
    def excess(self) -> float:
        """How far the setting is beyond its limits, summed; 0 if it keeps all of them."""
        return sum(max(0.0, violation) for violation in self.evaluation.violations.values())


def try_settings(
    bench: Bench,
    settings: ChooseSettings,
    objectives: Objectives,
    negatives: Mapping[str, CellPlan],
    first: Sequence[CellPlan],
    stop: Callable[[], bool],
) -> list[Tried]:
    """Try settings until there are `settings.trials`, or until there is no time left.

    Args:
        objectives: the aim and the limits.
        negatives: name -> a plan with this negative, in which rule and scale are still to be set.
        first: settings to try before all others.
        stop: asked before each batch; True ends the search. The settings of `first` are tried all the same.

    Returns:
        All settings that have a value, each once, the best first: those that keep all limits by the mean of
        the aim, then the others by how far they are beyond the limits.
    """
    space: tuple[Parameter, ...] = (
        Choice(key="guidance", options=tuple(settings.rules)),
        Choice(key="negatives", options=tuple(negatives)),
        settings.interval,
    )

    def plan_of(point: Mapping[str, str]) -> CellPlan:
        plan, scale = negatives[point["negatives"]], float(point["scale"])
        return replace(plan, guidance=point["guidance"], scale=scale)

    def evaluate(begin: int, points: Sequence[Mapping[str, str]]) -> list[Evaluation]:
        bench.console.print(
            f"settings {begin + 1} to {begin + len(points)} of at most {settings.trials}, "
            f"on {count(settings.search_prompts, 'prompt')} of the selection half",
            highlight=False,
        )
        return evaluations(bench, settings, objectives, list(map(plan_of, points)))

    problem = Problem(space=space, objectives=objectives, settings=settings.proposals)
    folder = TrialFolder(store=Store(bench.root), search=_identity(bench, problem, settings, negatives))
    folder.path.mkdir(parents=True, exist_ok=True)
    tried = [
        Tried(plan=plan, evaluation=evaluation)
        for plan, evaluation in zip(first, evaluations(bench, settings, objectives, first), strict=True)
    ]
    trials = search(problem, folder, settings.trials, evaluate, stop)
    tried += [Tried(plan=plan_of(trial.texts), evaluation=trial.evaluation) for trial in trials]
    with_value = [setting for setting in tried if not setting.evaluation.failure]
    aim = objectives.aims[0]
    ordered = sorted(
        with_value, key=lambda setting: (setting.excess, -aim.sign * setting.evaluation.means[aim.column])
    )  # of equal ones the first stays first
    by_cell: dict[str, Tried] = {}
    for setting in ordered:
        by_cell.setdefault(setting.evaluation.cell, setting)
    return list(by_cell.values())


def evaluations(
    bench: Bench, settings: ChooseSettings, objectives: Objectives, plans: Sequence[CellPlan]
) -> list[Evaluation]:
    """Decode settings on the selection half, and compute the means of the columns of the objectives."""
    columns = objectives.columns
    frame, (plain, *cells) = bench.selection([PLAIN, *plans], limit=settings.search_prompts, columns=columns)
    rows = rows_by_cell(frame, columns)
    return [evaluation_of(objectives, rows[cell], rows[plain]) for cell in cells]


def _identity(
    bench: Bench, problem: Problem, settings: ChooseSettings, negatives: Mapping[str, CellPlan]
) -> str:
    """A hash of everything that the values of the trials depend on."""
    cells = bench.study(list(negatives.values()), "selection", limit=settings.search_prompts).cells
    content = [
        [cell.identity for cell in cells],
        [repr(parameter) for parameter in problem.space],
        problem.objectives.texts,
        repr(problem.settings),
    ]
    return blake2b(json.dumps(content).encode(), digest_size=6).hexdigest()

"""The loop of a search: propose a batch, evaluate it, keep it, until there are enough trials."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cfg_lab.search.objectives import Objectives
from cfg_lab.search.proposals import SearchSettings, propose
from cfg_lab.search.space import Parameter, texts
from cfg_lab.search.trials import Evaluation, Trial, TrialFolder

Evaluate = Callable[[int, Sequence[Mapping[str, str]]], Sequence[Evaluation]]
"""Evaluates a batch: (number of the first trial, the overrides of each trial) -> what each gave."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """What is searched.

    Attributes:
        space: the parameters.
        objectives: what is optimised.
        settings: how trials are proposed.
    """

    space: tuple[Parameter, ...]
    objectives: Objectives
    settings: SearchSettings


def never() -> bool:
    """A budget that never ends."""
    return False


def search(
    problem: Problem,
    folder: TrialFolder,
    count: int,
    evaluate: Evaluate,
    stop: Callable[[], bool] = never,
) -> list[Trial]:
    """Make the trials of a search that are missing, and return its first `count` trials.

    1. Read the finished trials. They end anywhere in a batch if the search was killed, or if its last
       `trials=` was no multiple of the batch.
    2. Propose the batch that is not complete, from the trials of the batches before it.
    3. Evaluate all its trials, and keep those that are not kept yet. Repeat from 1.

    Proposals depend on nothing but earlier batches, so an interrupted search makes the same trials as an
    uninterrupted one, and the trials of a smaller `count` are the first ones of a larger `count`.

    Args:
        problem: what is searched.
        folder: keeps the trials.
        count: number of trials.
        evaluate: evaluates a batch.
        stop: asked before each batch; True ends the search with fewer trials, perhaps with none.
    """
    batch = problem.settings.batch
    while len(trials := folder.read()) < count and not stop():
        begin = len(trials) // batch * batch
        size = min(batch, count - begin)
        proposals = propose(problem.space, problem.objectives, problem.settings, trials[:begin], size)
        points = [texts(problem.space, proposal.values) for proposal in proposals]
        evaluations = evaluate(begin, points)
        rows = zip(proposals, points, evaluations, strict=True)
        for number, (proposal, point, evaluation) in enumerate(rows, begin):
            if number >= len(trials):
                folder.write(Trial(number=number, proposal=proposal, texts=point, evaluation=evaluation))
    return trials[:count]

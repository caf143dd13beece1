"""What a search is: its space, its objectives, and how a point of the space becomes a cell."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

from cfg_lab.errors import InputError
from cfg_lab.metrics import scorer_key
from cfg_lab.search.loop import Problem
from cfg_lab.search.space import size
from cfg_lab.study.cell import Study

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


def check_space(chosen: Search) -> None:
    """Check that a search makes sense before anything is written.

    Raises:
        InputError: a searched key cannot be searched, or the space has too few points.
    """
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

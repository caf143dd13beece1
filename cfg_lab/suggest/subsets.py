"""Which phrases belong together, and with which weights: a small search by Optuna."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import CategoricalDistribution
from optuna.samplers import TPESampler
from optuna.trial import TrialState

from cfg_lab.prompts import Phrase
from cfg_lab.suggest.halving import never

WEIGHTS = (0.0, 0.5, 1.0)
"""The weights that are tried. A phrase of weight 0 is left out."""


@dataclass(frozen=True, kw_only=True)
class Subset:
    """A set of weighted phrases, and the mean reward that was measured for it."""

    phrases: tuple[Phrase, ...]
    reward: float


def search_subsets(
    phrases: Sequence[str],
    measure: Callable[[Sequence[tuple[Phrase, ...]]], Sequence[float]],
    *,
    trials: int,
    batch: int,
    seed: int = 0,
    stop: Callable[[], bool] = never,
) -> list[Subset]:
    """Measure sets of phrases: each phrase alone, all together, then what TPE proposes.

    Args:
        phrases: the phrases, the most promising first. Of equal weights, the first stands first.
        measure: the mean rewards of some sets of phrases; higher is better, NaN if nothing is scored. All
            sets are measured on the same prompts.
        trials: number of sets to measure, those of single phrases included. Sets that TPE proposes again are
            not measured again, but count.
        batch: number of sets that are measured together.
        seed: seed of TPE.
        stop: asked before each batch but the first; True ends the search.

    Returns:
        The sets that were measured, the best first; of equally good ones the smallest, then the first.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(
        direction="maximize", sampler=TPESampler(seed=seed, n_startup_trials=len(phrases) + 1)
    )
    names = [f"weight of {phrase}" for phrase in phrases]
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: CategoricalDistribution(WEIGHTS) for name in names
    }
    for number in range(len(phrases)):
        study.enqueue_trial({name: float(other == number) for other, name in enumerate(names)})
    study.enqueue_trial(dict.fromkeys(names, 1.0))
    measured: dict[tuple[Phrase, ...], float] = {}
    done = 0
    while done < max(trials, len(phrases)) and (done == 0 or not stop()):
        asked = [study.ask(space) for _ in range(min(batch, max(trials, len(phrases)) - done))]
        done += len(asked)
        sets = [_weighted(phrases, [trial.params[name] for name in names]) for trial in asked]
        new = [phrases for phrases in dict.fromkeys(sets) if phrases and phrases not in measured]
        measured |= dict(zip(new, measure(new) if new else [], strict=True))
        for trial, weighted in zip(asked, sets, strict=True):
            reward = measured.get(weighted, math.nan)
            failed = math.isnan(reward)
            study.tell(trial, None if failed else reward, TrialState.FAIL if failed else None)
    subsets = [Subset(phrases=phrases, reward=reward) for phrases, reward in measured.items()]
    return sorted(
        subsets,
        key=lambda subset: (
            math.inf if math.isnan(subset.reward) else -subset.reward,
            len(subset.phrases),
        ),
    )


def _weighted(phrases: Sequence[str], weights: Sequence[float]) -> tuple[Phrase, ...]:
    """The phrases of a weight above 0, the heaviest first, scaled so that the heaviest has weight 1."""
    chosen = [Phrase(text, weight) for text, weight in zip(phrases, weights, strict=True) if weight]
    heaviest = max((phrase.weight for phrase in chosen), default=1.0)
    scaled = [Phrase(phrase.text, phrase.weight / heaviest) for phrase in chosen]
    return tuple(sorted(scaled, key=lambda phrase: -phrase.weight))

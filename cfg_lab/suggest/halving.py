"""Successive halving of candidates on sampled texts (Jamieson & Talwalkar 2016, arXiv:1502.07943)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cfg_lab.analysis.stats.clustered_means import Floats

Rewards = Mapping[str, Floats]
"""Name of a candidate -> the reward of each text. Entry i of all candidates has the same prompt and noise."""


def never() -> bool:
    """A budget that never ends."""
    return False


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round of halving.

    Attributes:
        prompts: number of prompts that were asked for.
        means: candidate -> paired mean of its rewards, the best first.
        kept: the candidates that go on, the best first.
    """

    prompts: int
    means: Mapping[str, float]
    kept: tuple[str, ...]


def paired_means(rewards: Rewards) -> dict[str, float]:
    """The mean reward of each candidate over the texts that are scored for every candidate.

    So differences of these means are means of paired differences. NaN if there is no such text.
    """
    table = np.stack(list(rewards.values()))  # [candidates, texts]
    scored = ~np.isnan(table).any(axis=0)
    means = table[:, scored].mean(axis=1) if scored.any() else np.full(len(table), math.nan)
    return dict(zip(rewards, means.tolist(), strict=True))


def halve(
    candidates: Sequence[str],
    sample: Callable[[Sequence[str], int], Rewards],
    *,
    prompts: int,
    most_prompts: int,
    survivors: int,
    stop: Callable[[], bool] = never,
) -> list[Round]:
    """Keep the better half of the candidates, double the number of prompts, and so on.

    1. `sample` gives the rewards of all remaining candidates on the same prompts, with the same noise.
    2. The better half by the paired mean goes on; of equal candidates, the one that came first.
    3. The number of prompts doubles. Prompts of earlier rounds stay, so their texts are not decoded again.

    Args:
        candidates: names of the candidates, the most promising first.
        sample: the rewards of candidates on the first so many prompts.
        prompts: number of prompts of the first round, at least 1.
        most_prompts: largest number of prompts.
        survivors: number of candidates that halving ends with, at least 1.
        stop: asked before each round; True ends halving.

    Returns:
        The rounds. `kept` of the last one has at most `survivors` candidates, unless `stop` ended halving.
        There are no rounds if there is nothing to halve, or if `stop` says so at once.
    """
    remaining, rounds = list(candidates), list[Round]()
    while len(remaining) > survivors and not stop():
        means = paired_means(sample(remaining, min(prompts, most_prompts)))
        # A candidate without scored texts is worse than any other. `sorted` keeps the order of equal ones.
        ranked = sorted(remaining, key=lambda name: math.inf if math.isnan(means[name]) else -means[name])
        remaining = ranked[: max(survivors, math.ceil(len(ranked) / 2))]
        rounds.append(
            Round(
                prompts=min(prompts, most_prompts),
                means={name: means[name] for name in ranked},
                kept=tuple(remaining),
            )
        )
        prompts *= 2
    return rounds

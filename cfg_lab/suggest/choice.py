"""The choice of a negative on the selection half of the prompts: candidates, ranking, halving, subsets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
import pandas as pd

from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.guidance.rule import Rule
from cfg_lab.prompts import Phrase, Prompt, parse_phrases
from cfg_lab.prompts.phrases import write_phrases
from cfg_lab.study.config import build
from cfg_lab.study.formats import count
from cfg_lab.study.progress import ProgressBar
from cfg_lab.suggest.candidates import (
    QUESTION,
    USER,
    Candidate,
    merge_candidates,
    phrases_in_answers,
)
from cfg_lab.suggest.cells import PLAIN, Bench, CellPlan
from cfg_lab.suggest.contrast import separating_phrases
from cfg_lab.suggest.halving import Rewards, Round, halve, never
from cfg_lab.suggest.opposites import IN_WORDS, AimInWords
from cfg_lab.suggest.ranking import Rank, RankingCost, ScoredText, rank, read_likelihoods, sides
from cfg_lab.suggest.settings import Origin, Settings
from cfg_lab.suggest.subsets import Subset, search_subsets
from cfg_lab.suggest.values import text_count, values_by_cell

_ANSWER_TOKENS = 48
"""Longest answer of the model to the question for candidates, in tokens."""

_ANSWERS = 2
"""Answers per question."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen, and everything that the choice is based on.

    Attributes:
        phrases: the chosen phrases, the heaviest first.
        origins: candidate -> where it comes from.
        rank: scale, gain and divergence of the chosen phrases together.
        ranks: candidate -> its rank, the best first.
        rounds: the rounds of halving.
        subsets: the sets of survivors that were measured, the best first. Their rewards are differences from
            plain decoding.
        prompts: number of prompts that the last choice was made with.
        texts: the scored plain texts that ranked the candidates.
        frames: all sampled texts.
        cost: cost of ranking.
    """

    phrases: tuple[Phrase, ...]
    origins: Mapping[str, tuple[str, ...]]
    rank: Rank
    ranks: Mapping[str, Rank]
    rounds: Sequence[Round]
    subsets: Sequence[Subset]
    prompts: int
    texts: Sequence[ScoredText]
    frames: Sequence[pd.DataFrame] = field(repr=False)
    cost: RankingCost = field(repr=False)

    @property
    def sampled(self) -> tuple[int, int]:
        """Number of texts that were sampled for the choice, and of their tokens."""
        return text_count(self.frames)


def choose_negative(bench: Bench, settings: Settings, stop: Callable[[], bool] = never) -> Choice:
    """Choose a negative prompt on the selection half of the prompts. The held-out half is not read.

    1. Plain texts of the first prompts are sampled and scored.
    2. Candidates come from the origins in `settings`.
    3. All candidates are ranked by teacher forcing on the plain texts, see `ranking`.
    4. The best of them are halved on sampled texts, each at its own scale, see `halving`.
    5. Optuna searches sets and weights of the survivors, see `subsets`. The set with the best paired mean
       difference from plain decoding is chosen.

    Args:
        stop: whether the budget is used up. It is asked between prompts, rounds and batches. Steps that have
            not begun are left out, and the choice is made with what is known.

    Raises:
        InputError: something is wrong; or no candidate was found.
    """
    choosing = _Choosing(bench, settings, stop)
    candidates = choosing.candidates()
    bench.console.print(
        f"{count(len(candidates), 'candidate')}: {', '.join(c.phrase for c in candidates)}",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    ranks = choosing.rank({c.phrase: bench.away_from([c.phrase]) for c in candidates}, stop)
    best_first = sorted(candidates, key=lambda c: np.nan_to_num(-ranks[c.phrase].gain, nan=np.inf))
    names = [c.phrase for c in best_first]
    rounds = halve(
        names[: settings.finalists],
        lambda names, prompts: choosing.rewards(names, ranks, prompts),
        prompts=settings.first_prompts,
        most_prompts=settings.most_prompts,
        survivors=settings.survivors,
        stop=stop,
    )
    survivors = (rounds[-1].kept if rounds else tuple(names))[: settings.survivors]
    subsets = search_subsets(
        survivors,
        choosing.measure,
        trials=settings.trials,
        batch=settings.batch,
        seed=settings.seed,
        stop=stop,
    )
    chosen = subsets[0].phrases
    origins = {c.phrase: c.origins for c in candidates}
    return Choice(
        phrases=chosen,
        origins={name: origins[name] for name in names},
        rank=choosing.set_ranks[write_phrases(chosen)],
        ranks={name: ranks[name] for name in names},
        rounds=rounds,
        subsets=subsets,
        prompts=len(bench.prompts("selection", settings.most_prompts)),
        texts=choosing.texts,
        frames=choosing.frames,
        cost=choosing.cost,
    )


def in_words(bench: Bench, settings: Settings) -> AimInWords | None:
    """The aim in words; None if neither the user nor the lab knows words for it."""
    known = IN_WORDS.get((bench.reward.column, bench.reward.better))
    opposites = known.opposites if known else ()
    if settings.opposite is not None:
        try:
            opposites = tuple(phrase.text for phrase in parse_phrases(settings.opposite))
        except InputError as error:
            raise InputError(f"opposite: {error}") from None
    wanted = settings.wanted or (known.wanted if known else "")
    return AimInWords(wanted, opposites) if opposites or wanted else None


class _Choosing:
    """The steps of a choice, which share the plain texts and count what they cost."""

    def __init__(self, bench: Bench, settings: Settings, stop: Callable[[], bool]) -> None:
        self.bench, self.settings, self.stop = bench, settings, stop
        self.cost = RankingCost()
        self.frames: list[pd.DataFrame] = []
        self.set_ranks: dict[str, Rank] = {}  # of the sets that were measured, by their phrases
        frame, _ = bench.selection([PLAIN], limit=settings.ranking_prompts, samples=settings.ranking_samples)
        self.frames.append(frame)
        self.texts = scored_texts(bench, frame, settings.ranking_prompts)
        self.plain_texts = frame["text"].tolist()
        if not sides(self.texts).any():
            raise InputError(
                f"aim is {bench.aim!r}, but no prompt has plain texts with different values of "
                f"{bench.reward.column}; raise ranking.samples (now {settings.ranking_samples}) or "
                "choose another aim"
            )

    def candidates(self) -> list[Candidate]:
        """All candidates.

        Raises:
            InputError: there is none.
        """
        origins: dict[str, Sequence[str]] = {}
        sources: dict[Origin, Callable[[], Sequence[str]]] = {
            "model": self._of_the_model,
            "opposite": self._opposites,
            "contrast": self._contrast,
        }
        for origin in get_args(Origin):
            if origin in self.settings.origins:
                origins[origin] = sources[origin]()
        origins[USER] = self.settings.candidates
        found = merge_candidates(origins, self.settings.per_origin)
        if not found:
            raise InputError(
                f"origins is {list(self.settings.origins)}, which give no candidate here; add "
                "'candidates=[…]' or opposite=…"
            )
        return found

    def _of_the_model(self) -> list[str]:
        prompts = self.bench.prompts("selection", self.settings.ranking_prompts)
        questions = [QUESTION.replace("{prompt}", prompt.text) for prompt in prompts]
        frame = self.bench.answers(
            list(dict.fromkeys(questions)), max_new_tokens=_ANSWER_TOKENS, samples=_ANSWERS
        )
        self.frames.append(frame)
        return phrases_in_answers(frame["text"].tolist())

    def _opposites(self) -> tuple[str, ...]:
        words = in_words(self.bench, self.settings)
        return words.opposites if words else ()

    def _contrast(self) -> list[str]:
        side = sides(self.texts)
        by_side = [
            [text for text, of_text in zip(self.plain_texts, side, strict=True) if of_text == wanted]
            for wanted in (-1, 1, 0)
        ]
        return separating_phrases(*by_side)

    def rank(self, plans: Mapping[str, CellPlan], stop: Callable[[], bool] = never) -> dict[str, Rank]:
        """The ranks of cells that steer away from something, by teacher forcing."""
        return rank_plans(self.bench, self.settings, self.texts, plans, self.cost, stop)

    def rewards(self, names: Sequence[str], ranks: Mapping[str, Rank], prompts: int) -> Rewards:
        """The rewards of candidates on the first prompts, each at its own scale."""
        plans = [self.bench.away_from([name], ranks[name].scale) for name in names]
        frame, cells = self.bench.selection(plans, limit=prompts)
        self.frames.append(frame)
        values, _ = values_by_cell(frame, cells)
        return {name: values[cell] for name, cell in zip(names, cells, strict=True)}

    def measure(self, sets: Sequence[tuple[Phrase, ...]]) -> list[float]:
        """The paired mean difference from plain decoding of sets of phrases, each at its own scale."""
        named = {write_phrases(phrases): phrases for phrases in sets}
        ranks = self.rank({name: self.bench.away_from(phrases) for name, phrases in named.items()})
        self.set_ranks |= ranks
        plans = [self.bench.away_from(phrases, ranks[name].scale) for name, phrases in named.items()]
        frame, (plain, *cells) = self.bench.selection([PLAIN, *plans], limit=self.settings.most_prompts)
        self.frames.append(frame)
        values, _ = values_by_cell(frame, [plain, *cells])
        differences = [values[cell] - values[plain] for cell in cells]
        return [float(np.nanmean(d)) if (~np.isnan(d)).any() else float("nan") for d in differences]


def scored_texts(bench: Bench, frame: pd.DataFrame, prompts: int) -> list[ScoredText]:
    """The texts of a frame of plain texts as the ranking needs them, in the order of the frame."""
    by_id: dict[str, Prompt] = {prompt.id: prompt for prompt in bench.prompts("selection", prompts)}
    return [
        ScoredText(
            prompt=by_id[str(row["prompt_id"])],
            tokens=tuple(int(token) for token in row["tokens"]),
            reward=float(row["reward"]),
        )
        for row in frame[["prompt_id", "tokens", "reward"]].to_dict("records")
    ]


def rank_plans(
    bench: Bench,
    settings: Settings,
    texts: Sequence[ScoredText],
    plans: Mapping[str, CellPlan],
    cost: RankingCost | None = None,
    stop: Callable[[], bool] = never,
) -> dict[str, Rank]:
    """The ranks of cells by teacher forcing on plain texts: what each gains, and its scale.

    Args:
        plans: name -> what to steer away from. The scales of the plans are not used.
        cost: counts what is read.
    """
    rule = build(bench.config, "guidance")
    if not isinstance(rule, Rule):
        raise InputError(
            f"guidance={bench.config.hydra.runtime.choices.guidance} has no scale to choose; take a rule "
            "such as guidance=cfg"
        )
    negatives = {name: bench.negative_of(plan) for name, plan in plans.items()}
    for name, negative in negatives.items():
        for prompt in dict.fromkeys(text.prompt for text in texts):  # before any is read
            positive = bench.model.encode(prompt.text, prompt.system)
            branches = negative.branches(prompt, bench.model)
            if not branches:
                raise InputError(f"{name!r} gives prompt {prompt.id!r} no negative context")
            Request(positive=positive, negatives=branches)
    with ProgressBar(bench.console, "ranking", len(texts) * len(plans), "texts") as bar:
        likelihoods = read_likelihoods(
            bench.model,
            texts,
            negatives,
            rule,
            settings.scales,
            folder=bench.root / "likelihoods",
            cost=cost,
            advance=bar.advance,
            stop=stop,
        )
    return {name: rank(of_plan, texts, settings.divergence) for name, of_plan in likelihoods.items()}

"""Evidence on held-out prompts: the found negative beside everything that is cheaper or simpler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from cfg_lab.analysis.stats import Difference, Estimate, holm, mean_interval, paired_difference
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.prompts.halves import Half
from cfg_lab.study.cell import Study
from cfg_lab.study.formats import interval, joined, p_value, signed
from cfg_lab.suggest.candidates import random_phrases
from cfg_lab.suggest.cells import DIVERGENCE, PLAIN, Bench, CellPlan, cell_ids
from cfg_lab.suggest.choice import Choice, in_words, rank_plans
from cfg_lab.suggest.opposites import AimInWords
from cfg_lab.suggest.settings import Settings
from cfg_lab.suggest.values import values_by_cell

FOUND = "found"
RANDOM = "random"
_NAMES = {
    "plain": "plain decoding",
    "own": "each prompt's own negative",
    "empty": "the empty negative",
    "opposite": "the opposite of the aim",
    RANDOM: "random phrases",
    "instruction": "an instruction in the prompt",
    "instruction not": "an instruction of what not to be",
}
"""Method -> its name in sentences."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One method on both halves of the prompts.

    Attributes:
        method: name of the method.
        phrases: its phrases, or what stands for them.
        scale: its guidance scale. The random draws together have the mean of their scales.
        divergence: kl_from_plain on the held-out prompts.
        reward: the column of the aim on the held-out prompts.
        selection, held_out: differences from plain decoding in the column of the aim, in its own direction.
            None for plain decoding itself.
        found_minus: the found negative minus this method on the held-out prompts; None for the found one.
        p: p value of `found_minus` after Holm's correction over all methods; NaN for the found one.
    """

    method: str
    phrases: str
    scale: float
    divergence: Estimate
    reward: Estimate
    selection: Difference | None
    held_out: Difference | None
    found_minus: Difference | None
    p: float


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is known of the found negative.

    Attributes:
        column: the column of the aim.
        better: 1 if high values are good, else -1.
        rows: the methods, plain decoding first and the found negative second.
        study: the held-out cells.
        prompts: number of prompts on the selection and on the held-out half.
        cells: half -> method -> id of its cell. Each random draw is a method of its own here.
    """

    column: str
    better: int
    rows: Sequence[Comparison]
    study: Study
    prompts: tuple[int, int]
    cells: Mapping[Half, Mapping[str, str]]

    @property
    def found(self) -> Comparison:
        """The row of the found negative."""
        return next(row for row in self.rows if row.method == FOUND)

    def sentences(self) -> list[str]:
        """What is shown and what is not, one statement per sentence."""
        groups: dict[str, list[str]] = {"better": [], "not shown": [], "worse": []}
        for row in self.rows:
            if row.found_minus is None:
                continue
            difference = row.found_minus
            ends = interval(difference.low, difference.high)
            text = f"{_NAMES[row.method]} ({signed(difference.mean)} {ends}, {p_value(row.p)})"
            if row.p < 0.05:
                groups["better" if difference.mean * self.better > 0 else "worse"].append(text)
            else:
                groups["not shown"].append(text)
        begin = {
            "better": "Shown: the found negative is better than ",
            "not shown": "Not shown to be better than ",
            "worse": "Shown: the found negative is worse than ",
        }
        sentences = [f"{begin[key]}{joined(texts)}." for key, texts in groups.items() if texts]
        compared = sum(map(len, groups.values()))
        sentences.append(f"These p values are corrected for {compared} comparisons; the intervals are not.")
        chosen, held_out = self.found.selection, self.found.held_out
        if chosen is not None and held_out is not None:
            sentences.append(
                f"Over plain decoding, {self.column} changes by {signed(chosen.mean)} "
                f"{interval(chosen.low, chosen.high)} on the {self.prompts[0]} prompts of the choice and by "
                f"{signed(held_out.mean)} {interval(held_out.low, held_out.high)} on {self.prompts[1]} "
                f"held-out prompts ({p_value(held_out.p)}). Only the second number is evidence."
            )
        return sentences


def methods(bench: Bench, settings: Settings, choice: Choice) -> list[CellPlan]:
    """All methods to compare, each at its own scale: there their divergences are alike, as far as they reach.

    The scales come from teacher forcing on the plain texts of the selection half. An instruction has the
    divergence that it has.
    """
    words = in_words(bench, settings)
    guided = [bench.away_from(choice.phrases, name=FOUND)]
    every_prompt = [*bench.prompts("selection"), *bench.prompts("held_out")]
    if all(prompt.negative for prompt in every_prompt):
        guided.append(CellPlan(name="own", negatives="own", values=bench.template))
    guided.append(CellPlan(name="empty", negatives="empty"))
    if words and words.opposites:
        guided.append(bench.away_from(words.opposites[:1], name="opposite"))
    texts = [phrase.text for phrase in choice.phrases]
    guided += [
        bench.away_from(random_phrases(texts, draw), name=f"{RANDOM} {draw + 1}")
        for draw in range(settings.draws)
    ]
    ranks = rank_plans(bench, settings, choice.texts, {plan.name: plan for plan in guided}, choice.cost)
    plans = [PLAIN, *(replace(plan, scale=ranks[plan.name].scale) for plan in guided)]
    plans += instructions(words)
    return plans


def instructions(words: AimInWords | None) -> list[CellPlan]:
    """Prompts with an instruction: what texts should be, and what they must not be.

    Args:
        words: the aim in words; None if nobody knows words for it.
    """
    texts: dict[str, tuple[str, str]] = {}
    if words and words.wanted:
        texts["instruction"] = "{prompt} It should be {negative}.", words.wanted
    if words and words.opposites:
        texts["instruction not"] = "{prompt} It must not be {negative}.", words.opposites[0]
    return [
        CellPlan(
            name=name,
            negatives="custom",
            values={"phrases": text, "template": template},
            instruction=True,
        )
        for name, (template, text) in texts.items()
    ]


def gather(bench: Bench, settings: Settings, choice: Choice, plans: Sequence[CellPlan]) -> Evidence:
    """Decode all methods on both halves, and compare them.

    On the selection half they are decoded on the prompts of the last choice only.
    """
    frame, cells = bench.selection(plans, limit=settings.most_prompts)
    chosen = {plan.name: cell for plan, cell in zip(plans, cells, strict=True)}
    study = bench.study(plans, "held_out")
    bench.run(study)
    held_out = bench.results(study)
    reported = {plan.name: cell for plan, cell in zip(plans, cell_ids(study), strict=True)}
    rows = compare(plans, half_values(frame, chosen, bench), half_values(held_out, reported, bench))
    return Evidence(
        column=bench.reward.column,
        better=bench.reward.sign,
        rows=rows,
        study=study,
        prompts=(int(frame["prompt"].nunique()), int(held_out["prompt"].nunique())),
        cells={"selection": chosen, "held_out": reported},
    )


@dataclass(frozen=True, kw_only=True)
class HalfValues:
    """Values of all methods on one half of the prompts; entry i of all methods has the same noise.

    Attributes:
        rewards, divergences: method -> values, [texts].
        prompts: the prompt of each text.
    """

    rewards: Mapping[str, Floats]
    divergences: Mapping[str, Floats]
    prompts: Sequence[str]


def half_values(frame: pd.DataFrame, cells: Mapping[str, str], bench: Bench) -> HalfValues:
    rewards, prompts = values_by_cell(frame, [*cells.values()], bench.reward.column)
    divergences, _ = values_by_cell(frame, [*cells.values()], DIVERGENCE)
    return HalfValues(
        rewards={name: rewards[cell] for name, cell in cells.items()},
        divergences={name: divergences[cell] for name, cell in cells.items()},
        prompts=prompts,
    )


def compare(
    plans: Sequence[CellPlan], selection: HalfValues, held_out: HalfValues, subject: str = FOUND
) -> list[Comparison]:
    """One row per method. The random draws are one method: the mean of their texts is compared.

    Args:
        plans: the methods; one of them has the name "plain".
        selection, held_out: the values of all methods on both halves of the prompts.
        subject: name of the method that all others are compared with.
    """
    draws = [plan.name for plan in plans if plan.name.startswith(f"{RANDOM} ")]
    shown = [plan for plan in plans if plan.name not in draws[1:]]

    def of(values: Mapping[str, Floats], name: str) -> Floats:
        return np.mean([values[draw] for draw in draws], axis=0) if name in draws else values[name]

    def difference(half: HalfValues, name: str, baseline: str) -> Difference:
        return paired_difference(
            of(half.rewards, name).tolist(), of(half.rewards, baseline).tolist(), half.prompts
        )

    def estimate(values: Mapping[str, Floats], name: str) -> Estimate:
        return mean_interval(of(values, name).tolist(), held_out.prompts)

    against = [plan.name for plan in shown if plan.name != subject]
    found_minus = {name: difference(held_out, subject, name) for name in against}
    corrected = dict(zip(against, holm([found_minus[name].p for name in against]), strict=True))
    rows: list[Comparison] = []
    for plan in shown:
        name = plan.name
        scales = [other.scale for other in plans if other.name in draws]
        rows.append(
            Comparison(
                method=RANDOM if name in draws else name,
                phrases=" | ".join(_phrases(other) for other in plans if other.name in draws)
                if name in draws
                else _phrases(plan),
                scale=float(np.mean(scales)) if name in draws else 0.0 if plan.instruction else plan.scale,
                divergence=estimate(held_out.divergences, name),
                reward=estimate(held_out.rewards, name),
                selection=None if name == "plain" else difference(selection, name, "plain"),
                held_out=None if name == "plain" else difference(held_out, name, "plain"),
                found_minus=found_minus.get(name),
                p=corrected.get(name, float("nan")),
            )
        )
    return rows


def _phrases(plan: CellPlan) -> str:
    """The phrases of a method for tables."""
    if plan.instruction:
        return (
            str(plan.values["template"])
            .replace("{prompt} ", "")
            .replace("{negative}", plan.values["phrases"])
        )
    return str(plan.values.get("phrases", ""))

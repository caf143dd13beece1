"""Evidence on held-out prompts: the best settings beside plain decoding and instructions in the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pandas as pd

from cfg_lab.analysis.stats import Difference, paired_difference
from cfg_lab.choose.budget import Budget
from cfg_lab.choose.search import Tried
from cfg_lab.choose.settings import ChooseSettings
from cfg_lab.choose.verdict import BEST, HAND_MADE, RUNNER_UP, Verdict, decide
from cfg_lab.metrics import columns_of
from cfg_lab.metrics.known_columns import column_info
from cfg_lab.search.objectives import Objectives
from cfg_lab.study.cell import Study
from cfg_lab.study.costs import total
from cfg_lab.study.store import Store
from cfg_lab.suggest.cells import PLAIN, Bench, CellPlan, cell_ids
from cfg_lab.suggest.choice import in_words as aim_in_words
from cfg_lab.suggest.evidence import Comparison, compare, half_values, instructions
from cfg_lab.suggest.settings import Settings
from cfg_lab.suggest.values import values_by_cell

_EVIDENCE = 0.4
"""Largest share of the budget for the evidence, if the prompts allow a smaller one."""

_FEWEST_PROMPTS = 16
"""Fewest held-out prompts of the evidence, however small the budget is."""

HAND_MADE_SCALE = 3.0
"""Scale of the hand-made setting: each prompt's own negative, as in the default study."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The evidence, and what is recommended.

    Attributes:
        plans: the methods that were compared.
        rows: their numbers on both halves.
        study: the held-out cells.
        verdict: what is recommended, and why.
    """

    plans: Sequence[CellPlan]
    rows: Sequence[Comparison]
    study: Study
    verdict: Verdict


@dataclass(frozen=True, kw_only=True)
class HeldOutPrompts:
    """How many held-out prompts the evidence takes, and which share of the budget."""

    limit: int
    share: float


def held_out_prompts(bench: Bench, suggest: Settings, budget: Budget) -> HeldOutPrompts:
    """As many held-out prompts as can be decoded in the last part of the budget.

    The time of a token is measured on the plain texts that rank the candidates.
    """
    bench.selection([PLAIN], limit=suggest.ranking_prompts, samples=suggest.ranking_samples)
    cost = total(Store(bench.root / "selection").costs())
    seconds_per_token = cost["seconds"] / max(1.0, cost["tokens"])
    contexts = 12  # of six methods: plain decoding has one, most others have two
    per_prompt = contexts * int(bench.config.samples) * int(bench.config.max_new_tokens) * seconds_per_token
    most = len(bench.prompts("held_out"))
    limit = min(most, max(_FEWEST_PROMPTS, int(_EVIDENCE * budget.seconds / per_prompt)))
    if limit < most:
        bench.console.print(
            f"{limit} of {most} held-out prompts fit into the budget; a larger budget takes more",
            highlight=False,
        )
    return HeldOutPrompts(limit=limit, share=min(0.9, limit * per_prompt / budget.seconds))


def all_have_negatives(bench: Bench) -> bool:
    return all(prompt.negative for half in ("selection", "held_out") for prompt in bench.prompts(half))


def gather(
    bench: Bench,
    settings: ChooseSettings,
    suggest: Settings,
    objectives: Objectives,
    tried: Sequence[Tried],
    limit: int,
) -> Answer:
    """Decode the best settings, plain decoding and instructions on both halves, and decide."""
    plans = [PLAIN, replace(tried[0].plan, name=BEST)]
    plans += [replace(setting.plan, name=RUNNER_UP) for setting in tried[1:2]]
    hand_made = CellPlan(name=HAND_MADE, negatives="own", values=bench.template, scale=HAND_MADE_SCALE)
    used = [(plan.negatives, plan.scale, plan.guidance) for plan in plans]
    if all_have_negatives(bench) and ("own", HAND_MADE_SCALE, "") not in used:
        plans.append(hand_made)
    plans += instructions(aim_in_words(bench, suggest))
    prices = _price_columns(bench, objectives)
    frame, cells = bench.selection(plans, limit=settings.search_prompts)
    chosen = {plan.name: cell for plan, cell in zip(plans, cells, strict=True)}
    study = bench.study(plans, "held_out", limit=limit)
    bench.run(study)
    held_out = bench.results(study, prices)
    reported = {plan.name: cell for plan, cell in zip(plans, cell_ids(study), strict=True)}
    rows = compare(
        plans, half_values(frame, chosen, bench), half_values(held_out, reported, bench), subject=BEST
    )
    verdict = decide(
        rows,
        column=bench.reward.column,
        sign=bench.reward.sign,
        prompts=(int(frame["prompt"].nunique()), int(held_out["prompt"].nunique())),
        prices={name: _difference(held_out, reported, name) for name in prices},
        broken=[text for text, violation in tried[0].evaluation.violations.items() if violation > 0],
    )
    return Answer(plans=plans, rows=rows, study=study, verdict=verdict)


def _price_columns(bench: Bench, objectives: Objectives) -> list[str]:
    """The columns of the limits, and the main column of each family that guidance can make worse."""
    columns = [limit.column for limit in objectives.limits]
    for metric in bench.metrics:
        first = next(iter(columns_of(metric)))
        if column_info(first).role in ("fluency", "relevance", "diversity"):
            columns.append(first)
    return [column for column in dict.fromkeys(columns) if column != bench.reward.column]


def _difference(frame: pd.DataFrame, cells: dict[str, str], column: str) -> Difference:
    """The best guided setting minus plain decoding."""
    values, prompts = values_by_cell(frame, [cells[BEST], cells[PLAIN.name]], column)
    return paired_difference(values[cells[BEST]].tolist(), values[cells[PLAIN.name]].tolist(), prompts)

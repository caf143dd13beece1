"""The command: find a negative, search rule and scale, gather evidence on held-out prompts, recommend.

The parts of the budget:
1. A negative prompt is found (`cfg_lab.suggest`), until half of the time before the evidence is used.
2. Rules, negatives and scales are searched (`cfg_lab.search`), until only the time for the evidence is left.
3. The best settings, plain decoding and instructions in the prompt are decoded on the held-out half.
"""

from __future__ import annotations

import copy
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import yaml
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cfg_lab.analysis.stats import Difference, paired_difference
from cfg_lab.choose.budget import Budget, in_words, parse_budget
from cfg_lab.choose.search import Tried, try_settings
from cfg_lab.choose.settings import KEYS, ChooseSettings
from cfg_lab.choose.settings import settings_of as choose_settings_of
from cfg_lab.choose.verdict import (
    BEST,
    HAND_MADE,
    INSTRUCTIONS,
    RUNNER_UP,
    Verdict,
    decide,
    difference_in_words,
)
from cfg_lab.commands import command_console, show_results
from cfg_lab.errors import InputError
from cfg_lab.metrics import columns_of
from cfg_lab.metrics.known_columns import column_info
from cfg_lab.search.objectives import Objectives, parse_objectives
from cfg_lab.study.cell import Study
from cfg_lab.study.config import build
from cfg_lab.study.console import print_paths
from cfg_lab.study.costs import total
from cfg_lab.study.formats import compact, count, p_value, three_digits
from cfg_lab.study.provenance import command_line
from cfg_lab.study.scoring import main_columns
from cfg_lab.study.store import Store
from cfg_lab.suggest.cells import PLAIN, Bench, CellPlan, cell_ids, values_by_cell
from cfg_lab.suggest.choice import Choice, choose_negative
from cfg_lab.suggest.choice import in_words as aim_in_words
from cfg_lab.suggest.evidence import Comparison, compare, half_values, instructions
from cfg_lab.suggest.run import plain_config_without_negatives
from cfg_lab.suggest.settings import Settings

_SUGGEST_KEYS = ("opposite", "wanted", "candidates", "origins", "per_origin")
_OWN_KEYS = ("aim", "budget", *KEYS, *_SUGGEST_KEYS)
_KEPT = ("model", "prompts", "sampling", "max_new_tokens", "samples", "seed", "stop")
"""Keys whose overrides the recommended command needs, too."""

_EVIDENCE = 0.4
"""Largest share of the budget for the evidence, if the prompts allow a smaller one."""

_FEWEST_PROMPTS = 16
"""Fewest held-out prompts of the evidence, however small the budget is."""

_HAND_MADE_SCALE = 3.0
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


def run(config: DictConfig, began: float) -> Answer:
    """Recommend a setting, and write choice.yaml.

    Args:
        config: the composed config, with the names of the chosen options in hydra.runtime.choices.
        began: when the budget began, on the clock of `time.monotonic`.

    Raises:
        InputError: something is wrong; nothing was written.
    """
    console = command_console()
    values: dict[str, Any] = {**plain_config_without_negatives(config)}
    budget = Budget(seconds=parse_budget(values["budget"]), began=began)
    settings = choose_settings_of(values)
    suggest = Settings(**{key: values[key] for key in _SUGGEST_KEYS}, seed=settings.seed)
    bench = Bench(
        config=_cell_config(config),
        aim=values["aim"],
        command=command_line("cfg_lab.choose"),
        console=console,
    )
    objectives = Objectives(
        aims=(bench.reward,), limits=parse_objectives([values["aim"], *settings.limits], bench.metrics).limits
    )
    _check(bench, settings)
    tracker = build(bench.config, "tracking")
    console.print(
        f"[bold]{escape(bench.name)}[/]: a recommendation for {escape(bench.aim)} within "
        f"{in_words(budget.seconds)}; {count(len(bench.prompts('selection')), 'prompt')} to choose with, "
        f"{count(len(bench.prompts('held_out')), 'prompt')} for the evidence",
        highlight=False,
    )
    prompts = _held_out_prompts(bench, suggest, budget)
    before_evidence = (1 - prompts.share) * budget.seconds
    choice = choose_negative(bench, suggest, budget.stop_after((budget.used + before_evidence) / 2))
    budget.finish("finding a negative")
    tried = _search(bench, settings, objectives, choice, budget.stop_after(before_evidence))
    budget.finish(f"trying {count(len(tried), 'setting')}")
    answer = _gather(bench, settings, suggest, objectives, tried, prompts.limit)
    budget.finish("evidence")
    path = Store(bench.root).write_text("choice.yaml", _choice_file(bench, answer, choice, budget))
    columns = list(dict.fromkeys([bench.reward.column, *main_columns(bench.metrics)]))
    show_results(answer.study, columns, tracker, console, page=bench.config.report, conclude=False)
    _show(bench, answer, budget, console)
    print_paths(console, {"choice": path})
    return answer


def _cell_config(config: DictConfig) -> DictConfig:
    """The part of the config that a cell of a sweep has, too."""
    rest = copy.deepcopy(config)
    with open_dict(rest):
        for key in _OWN_KEYS:
            del rest[key]
        rest.negatives.phrases = None
    return rest


def _check(bench: Bench, settings: ChooseSettings) -> None:
    """Build one cell of every rule on both halves, before anything is decoded or written."""
    Store(bench.root).check_version()
    plans = [replace(bench.away_from(["bad"], 1.5), guidance=str(rule)) for rule in settings.rules]
    for half in ("selection", "held_out"):
        bench.prompts(half)
        bench.study(plans, half)


@dataclass(frozen=True, kw_only=True)
class _HeldOutPrompts:
    """How many held-out prompts the evidence takes, and which share of the budget."""

    limit: int
    share: float


def _held_out_prompts(bench: Bench, suggest: Settings, budget: Budget) -> _HeldOutPrompts:
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
    return _HeldOutPrompts(limit=limit, share=min(0.9, limit * per_prompt / budget.seconds))


def _negatives(bench: Bench, choice: Choice) -> dict[str, CellPlan]:
    """The negatives to search among, by name: the found one, each prompt's own, and the empty one."""
    plans = {"found": bench.away_from(choice.phrases)}
    if _all_have_negatives(bench):
        plans["own"] = CellPlan(name="own", negatives="own", values=bench.template)
    return {**plans, "empty": CellPlan(name="empty", negatives="empty")}


def _all_have_negatives(bench: Bench) -> bool:
    return all(prompt.negative for half in ("selection", "held_out") for prompt in bench.prompts(half))


def _search(
    bench: Bench, settings: ChooseSettings, objectives: Objectives, choice: Choice, stop: Any
) -> list[Tried]:
    negatives = _negatives(bench, choice)
    low, high = settings.scales
    scale = float(f"{min(max(choice.rank.scale, low), high):.3g}")
    first = [replace(negatives["found"], scale=scale)]
    if "own" in negatives:
        first.append(replace(negatives["own"], scale=_HAND_MADE_SCALE))
    tried = try_settings(bench, settings, objectives, negatives, first, stop)
    if not tried:
        raise InputError(
            f"aim is {bench.aim!r}, but {bench.reward.column} has no score for most texts; choose another aim"
        )
    return tried


def _gather(
    bench: Bench,
    settings: ChooseSettings,
    suggest: Settings,
    objectives: Objectives,
    tried: Sequence[Tried],
    limit: int,
) -> Answer:
    """Decode the best settings, plain decoding and instructions on both halves, and decide."""
    plans = [PLAIN, replace(tried[0].plan, name=BEST)]
    plans += [replace(one.plan, name=RUNNER_UP) for one in tried[1:2]]
    hand_made = CellPlan(name=HAND_MADE, negatives="own", values=bench.template, scale=_HAND_MADE_SCALE)
    used = [(plan.negatives, plan.scale, plan.guidance) for plan in plans]
    if _all_have_negatives(bench) and ("own", _HAND_MADE_SCALE, "") not in used:
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


def overrides_of(plan: CellPlan) -> list[str]:
    """The overrides with which `cfg_lab.sweep` makes the cell of a plan."""
    lines = [f"guidance={plan.guidance}"] if plan.guidance else []
    lines += [f"guidance.scale={0 if plan.instruction else plan.scale:g}", f"negatives={plan.negatives}"]
    for key, value in plan.values.items():
        if value is not None and (key, value) not in (("template", "default"), ("mode", "joined")):
            text = str(value).replace("\\", "\\\\").replace('"', r"\"")
            lines.append(f'negatives.{key}="{text}"')
    return lines


def _command(bench: Bench, plan: CellPlan) -> str:
    """The command that decodes with a plan, beside plain decoding."""
    kept = [argument for argument in sys.argv[1:] if argument.startswith(_KEPT)]
    lines = overrides_of(plan)
    if not plan.instruction and plan.scale != 1:
        lines = [line.replace("guidance.scale=", "guidance.scale=1,") for line in lines]
    return shlex.join(["python", "-m", "cfg_lab.sweep", *lines, *kept, f"name={bench.name}_used"])


def _show(bench: Bench, answer: Answer, budget: Budget, console: Console) -> None:
    """Print the table of both halves, the verdict, the command, and how the time was used."""

    def say(line: str, style: str = "") -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)

    console.print(_table(bench, answer))
    for number, sentence in enumerate(answer.verdict.sentences):
        say(sentence, "" if number else "bold")
    by_name = {plan.name: plan for plan in answer.plans}
    for name in (BEST, RUNNER_UP, *INSTRUCTIONS):
        if name in by_name:
            say(f"{name}: {_setting(by_name[name])}")
    say(f"recommended: {_setting(by_name[answer.verdict.method])}", "bold")
    say(f"use it: {_command(bench, by_name[answer.verdict.method])}")
    if answer.verdict.method != BEST:
        say(f"use guidance all the same: {_command(bench, by_name[BEST])}")
    parts = ", ".join(f"{name} {in_words(seconds)}" for name, seconds in budget.parts.items())
    say(f"used {in_words(budget.used)} of {in_words(budget.seconds)}: {parts}")


def _setting(plan: CellPlan) -> str:
    """A setting in words."""
    if plan.name == PLAIN.name:
        return "plain decoding, without guidance"
    if plan.instruction:
        text = (
            str(plan.values["template"])
            .replace("{prompt} ", "")
            .replace("{negative}", plan.values["phrases"])
        )
        return f'the instruction "{text}" after each prompt, without guidance'
    negative = {"own": "each prompt's own negative", "empty": "the empty prompt"}.get(
        plan.negatives, f'"{plan.values.get("phrases", "")}"'
    )
    rule = f"{plan.guidance}, " if plan.guidance else ""
    return f"guidance away from {negative} ({rule}scale {plan.scale:g})"


def _table(bench: Bench, answer: Answer) -> Table:
    """One row per method: mean of the aim, changes on both halves, and the comparison."""
    table = Table(header_style="bold", row_styles=["", "on grey11"], caption_justify="left")
    table.add_column("method", overflow="fold")
    for name in (bench.reward.column, "change: choice", "change: held out", "best guided − this", "p"):
        table.add_column(name, justify="right")
    for row in answer.rows:
        table.add_row(
            *map(escape, (row.method, three_digits(row.reward.mean))),
            *(
                escape(difference_in_words(one)) if one else ""
                for one in (row.selection, row.held_out, row.found_minus)
            ),
            "" if row.found_minus is None else p_value(row.p).removeprefix("p = "),
        )
    table.caption = (
        f"{bench.reward.column}: mean on held-out prompts; changes from plain decoding, [95 % interval]; "
        "p after Holm's correction"
    )
    return table


def _choice_file(bench: Bench, answer: Answer, choice: Choice, budget: Budget) -> str:
    """The content of choice.yaml."""
    by_name = {plan.name: plan for plan in answer.plans}
    texts, tokens = choice.sampled

    def described(plan: CellPlan) -> dict[str, Any]:
        return {"setting": _setting(plan), "overrides": overrides_of(plan), "command": _command(bench, plan)}

    content: dict[str, Any] = {
        "conclusion": list(answer.verdict.sentences),
        "recommended": described(by_name[answer.verdict.method]),
        "best_guided": described(by_name[BEST]),
        **({"runner_up": described(by_name[RUNNER_UP])} if RUNNER_UP in by_name else {}),
        "methods": [
            {
                "method": row.method,
                bench.reward.column: compact(row.reward.mean),
                "change_on_selection": _numbers(row.selection),
                "change_on_held_out": _numbers(row.held_out),
                "best_guided_minus_this": _numbers(row.found_minus),
                "p_holm": compact(row.p),
            }
            for row in answer.rows
        ],
        "cost": {
            "seconds": {name: round(seconds) for name, seconds in budget.parts.items()},
            "finding_a_negative": {"texts": texts, "tokens": tokens},
        },
    }
    head = f"# Written by: {bench.command}\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def _numbers(difference: Difference | None) -> list[float | None] | None:
    """Mean and ends of the interval."""
    return (
        None
        if difference is None
        else [compact(x) for x in (difference.mean, difference.low, difference.high)]
    )

"""The command: find a negative, search rule and scale, gather evidence on held-out prompts, recommend.

The parts of the budget:
1. A negative prompt is found (`cfg_lab.suggest`), until half of the time before the evidence is used.
2. Rules, negatives and scales are searched (`cfg_lab.search`), until only the time for the evidence is left.
3. The best settings, plain decoding and instructions in the prompt are decoded on the held-out half.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from omegaconf import DictConfig
from rich.markup import escape

from cfg_lab.choose.budget import Budget, in_words, parse_budget
from cfg_lab.choose.evidence import HAND_MADE_SCALE, Answer, all_have_negatives, gather, held_out_prompts
from cfg_lab.choose.output import choice_file, show
from cfg_lab.choose.search import Tried, try_settings
from cfg_lab.choose.settings import KEYS, ChooseSettings
from cfg_lab.choose.settings import settings_of as choose_settings_of
from cfg_lab.commands import command_console, show_results
from cfg_lab.errors import InputError
from cfg_lab.search.objectives import Objectives, parse_objectives
from cfg_lab.study.config import build
from cfg_lab.study.console import print_paths
from cfg_lab.study.formats import count
from cfg_lab.study.provenance import command_line
from cfg_lab.study.scoring import main_columns
from cfg_lab.study.store import Store
from cfg_lab.suggest.cells import Bench, CellPlan
from cfg_lab.suggest.choice import Choice, choose_negative
from cfg_lab.suggest.run import cell_config, plain_config_without_negatives
from cfg_lab.suggest.settings import Settings

_SUGGEST_KEYS = ("opposite", "wanted", "candidates", "origins", "per_origin")
_OWN_KEYS = ("aim", "budget", *KEYS, *_SUGGEST_KEYS)


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
        config=cell_config(config, _OWN_KEYS),
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
    prompts = held_out_prompts(bench, suggest, budget)
    before_evidence = (1 - prompts.share) * budget.seconds
    choice = choose_negative(bench, suggest, budget.stop_before((budget.used + before_evidence) / 2))
    budget.finish("finding a negative")
    tried = _search(bench, settings, objectives, choice, budget.stop_before(before_evidence))
    budget.finish(f"trying {count(len(tried), 'setting')}")
    answer = gather(bench, settings, suggest, objectives, tried, prompts.limit)
    budget.finish("evidence")
    path = Store(bench.root).write_text("choice.yaml", choice_file(bench, answer, choice, budget))
    columns = list(dict.fromkeys([bench.reward.column, *main_columns(bench.metrics)]))
    show_results(answer.study, columns, tracker, console, page=bench.config.report, conclude=False)
    show(bench, answer, budget, console)
    print_paths(console, {"choice": path})
    return answer


def _check(bench: Bench, settings: ChooseSettings) -> None:
    """Build one cell of every rule on both halves, before anything is decoded or written."""
    Store(bench.root).check_version()
    plans = [replace(bench.away_from(["bad"], 1.5), guidance=str(rule)) for rule in settings.rules]
    for half in ("selection", "held_out"):
        bench.prompts(half)
        bench.study(plans, half)


def _negatives(bench: Bench, choice: Choice) -> dict[str, CellPlan]:
    """The negatives to search among, by name: the found one, each prompt's own, and the empty one."""
    plans = {"found": bench.away_from(choice.phrases)}
    if all_have_negatives(bench):
        plans["own"] = CellPlan(name="own", negatives="own", values=bench.template)
    return {**plans, "empty": CellPlan(name="empty", negatives="empty")}


def _search(
    bench: Bench, settings: ChooseSettings, objectives: Objectives, choice: Choice, stop: Any
) -> list[Tried]:
    negatives = _negatives(bench, choice)
    low, high = settings.scales
    scale = float(f"{min(max(choice.rank.scale, low), high):.3g}")
    first = [replace(negatives["found"], scale=scale)]
    if "own" in negatives:
        first.append(replace(negatives["own"], scale=HAND_MADE_SCALE))
    tried = try_settings(bench, settings, objectives, negatives, first, stop)
    if not tried:
        raise InputError(
            f"aim is {bench.aim!r}, but {bench.reward.column} has no score for most texts; choose another aim"
        )
    return tried

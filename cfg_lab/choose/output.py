"""What the command shows and writes: the table, the settings in words, the commands, choice.yaml."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cfg_lab.analysis.stats import Difference
from cfg_lab.choose.budget import Budget, in_words
from cfg_lab.choose.evidence import Answer
from cfg_lab.choose.verdict import BEST, INSTRUCTIONS, RUNNER_UP, difference_in_words
from cfg_lab.study.formats import compact, p_value, three_digits
from cfg_lab.suggest.cells import PLAIN, Bench, CellPlan
from cfg_lab.suggest.choice import Choice

_KEPT = ("model", "prompts", "sampling", "max_new_tokens", "samples", "seed", "stop")
"""Keys whose overrides the recommended command needs, too."""


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


def show(bench: Bench, answer: Answer, budget: Budget, console: Console) -> None:
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
                escape(difference_in_words(difference)) if difference else ""
                for difference in (row.selection, row.held_out, row.found_minus)
            ),
            "" if row.found_minus is None else p_value(row.p).removeprefix("p = "),
        )
    table.caption = (
        f"{bench.reward.column}: mean on held-out prompts; changes from plain decoding, [95 % interval]; "
        "p after Holm's correction"
    )
    return table


def choice_file(bench: Bench, answer: Answer, choice: Choice, budget: Budget) -> str:
    """The content of choice.yaml."""
    by_name = {plan.name: plan for plan in answer.plans}
    texts, tokens = choice.sampled

    def described(plan: CellPlan) -> dict[str, Any]:
        return {"setting": _setting(plan), "overrides": overrides_of(plan), "command": _command(bench, plan)}

    content: dict[str, Any] = {
        "column": bench.reward.column,
        "conclusion": list(answer.verdict.sentences),
        "recommended": described(by_name[answer.verdict.method]),
        "best_guided": described(by_name[BEST]),
        **({"runner_up": described(by_name[RUNNER_UP])} if RUNNER_UP in by_name else {}),
        "methods": [
            {
                "method": row.method,
                "mean": compact(row.reward.mean),
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

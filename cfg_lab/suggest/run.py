"""The command: choose a negative, gather the evidence, write the file, and show all of it."""

from __future__ import annotations

import copy
import shlex
import sys
from collections import deque
from collections.abc import Sequence
from typing import Any, cast, get_args

from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cfg_lab.analysis.stats import Difference
from cfg_lab.commands import command_console, show_results
from cfg_lab.prompts.halves import Half
from cfg_lab.study.config import build, plain_config
from cfg_lab.study.console import print_paths
from cfg_lab.study.costs import total
from cfg_lab.study.formats import count, interval, signed, three_digits
from cfg_lab.study.plan import plan
from cfg_lab.study.provenance import command_line
from cfg_lab.study.scoring import main_columns
from cfg_lab.study.store import Store
from cfg_lab.suggest.cells import PLAIN, Bench
from cfg_lab.suggest.choice import Choice, choose_negative
from cfg_lab.suggest.evidence import Evidence, gather, methods
from cfg_lab.suggest.negatives_file import choice_file, negatives_file
from cfg_lab.suggest.settings import GROUPED, PLAIN_KEYS, settings_of

OWN_KEYS = ("aim", *PLAIN_KEYS, *GROUPED)
"""Keys of conf/suggest.yaml that conf/sweep.yaml does not have."""

_KEPT_OVERRIDES = ("model", "prompts", "sampling", "guidance", "max_new_tokens", "samples", "seed", "stop")
"""Keys whose overrides the command that uses the found negative needs, too."""


def run(config: DictConfig) -> tuple[Choice, Evidence]:
    """Choose a negative prompt and write it to negatives.yaml.

    Args:
        config: the composed config, with the names of the chosen options in hydra.runtime.choices.

    Raises:
        InputError: something is wrong; nothing was written.
    """
    console = command_console()
    values = plain_config_without_negatives(config)
    settings = settings_of(values, seed=values.get("seed", 0))
    bench = Bench(
        config=cell_config(config),
        aim=cast("str", values["aim"]),  # which is checked when it is read
        command=command_line("cfg_lab.suggest"),
        console=console,
    )
    check(bench)
    tracker = build(bench.config, "tracking")
    console.print(
        f"[bold]{escape(bench.name)}[/]: a negative for {escape(bench.aim)}, chosen on "
        f"{count(len(bench.prompts('selection', settings.most_prompts)), 'prompt')}, reported on "
        f"{count(len(bench.prompts('held_out')), 'other prompt')}",
        highlight=False,
    )
    choice = choose_negative(bench, settings)
    evidence = gather(bench, settings, choice, methods(bench, settings, choice))
    columns = list(dict.fromkeys([bench.reward.column, *main_columns(bench.metrics)]))
    store = Store(bench.root)
    store.write_text("choice.json", choice_file(choice, evidence, _sampling_seconds(bench)))
    path = store.write_text("negatives.yaml", negatives_file(bench, choice, evidence))
    show_results(evidence.study, columns, tracker, console, page=bench.config.report)
    _show(bench, choice, evidence, console)
    print_paths(console, {"negatives": path})
    return choice, evidence


def plain_config_without_negatives(config: DictConfig) -> dict[str, Any]:
    """The values of a config. The phrases of its negatives have no value yet."""
    rest = copy.deepcopy(config)
    with open_dict(rest):
        del rest["negatives"]
    return plain_config(rest)


def cell_config(config: DictConfig, own_keys: Sequence[str] = OWN_KEYS) -> DictConfig:
    """The part of the config that a cell of a sweep has, too.

    Args:
        own_keys: the keys of the command that a sweep does not have.
    """
    rest = copy.deepcopy(config)
    with open_dict(rest):
        for key in own_keys:
            del rest[key]
        if OmegaConf.is_missing(rest.negatives, "phrases"):
            rest.negatives.phrases = None
    return rest


def check(bench: Bench) -> None:
    """Check what can be checked before anything is decoded or written.

    Raises:
        InputError: something is wrong.
    """
    _ = bench.reward
    Store(bench.root).check_version()
    for half in get_args(Half):
        # All values of the config, and whether all prompts fit into the model.
        study = bench.study([PLAIN, bench.away_from(["bad"], 1.5)], half)
        for cell in study.cells:
            deque(plan(cell, bench.model, study.max_rows), maxlen=0)


def _show(bench: Bench, choice: Choice, evidence: Evidence, console: Console) -> None:
    """Print the found phrases, the evidence, what the choice cost, and the command that uses the phrases."""
    console.print(_table(evidence))

    def say(line: str, style: str = "") -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True, style=style)

    for phrase in choice.phrases:
        weight = "" if phrase.weight == 1 else f", weight {phrase.weight:g}"
        say(f'found: "{phrase.text}"{weight} (from: {", ".join(choice.origins[phrase.text])})', "bold")
    for sentence in evidence.sentences():
        say(sentence)
    texts, tokens = choice.sampled
    seconds, cost = _sampling_seconds(bench), choice.cost
    say(
        f"The choice cost {count(texts, 'sampled text')} ({tokens:,} tokens) and {cost.forwards:,} readings "
        f"of a text ({cost.tokens:,} tokens, {three_digits(cost.forwards_per_second)} per second); "
        f"{seconds + cost.seconds:,.0f} s together with the comparison on the selection half."
    )
    kept = [argument for argument in sys.argv[1:] if argument.startswith(_KEPT_OVERRIDES)]
    path = bench.root / "negatives.yaml"
    command = shlex.join(
        [
            *("python", "-m", "cfg_lab.sweep", "negatives=file", f"negatives.path={path}"),
            *(f"guidance.scale=1,{choice.rank.scale:g}", *kept, f"name={bench.name}_used"),
        ]
    )
    say(f"use it: {command}")


def _sampling_seconds(bench: Bench) -> float:
    """Time that sampling took for the choice, and for the comparison on the same prompts."""
    costs = [Store(bench.root / folder).costs() for folder in ("selection", "questions")]
    return sum(total(of_folder).get("seconds", 0.0) for of_folder in costs)


def _table(evidence: Evidence) -> Table:
    """One row per method: its strength, and the column of the aim on both halves."""
    table = Table(header_style="bold", row_styles=["", "on grey11"], caption_justify="left")
    table.add_column("method")
    for name in ("scale", "KL", evidence.column, "change: choice", "change: held out"):
        table.add_column(name, justify="right")
    for row in evidence.rows:
        table.add_row(
            escape(row.method),
            *(three_digits(value) for value in (row.scale, row.divergence.mean, row.reward.mean)),
            *(_difference_in_lines(difference) for difference in (row.selection, row.held_out)),
        )
    table.caption = (
        f"{evidence.column}: mean on {evidence.prompts[1]} held-out prompts\n"
        "change: from plain decoding, \\[95 % interval], on "
        f"{evidence.prompts[0]} prompts of the choice, and held out\n"
        "KL: nats per token from plain decoding"
    )
    return table


def _difference_in_lines(difference: Difference | None) -> str:
    """A difference with its interval in the next line; empty for None."""
    if difference is None:
        return ""
    return f"{signed(difference.mean)}\n[dim]{escape(interval(difference.low, difference.high))}[/]"

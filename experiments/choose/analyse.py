"""Tables of the study `choose`: `python -m experiments.choose.analyse`. They come from choice.yaml."""

from __future__ import annotations

import math
import shutil
from typing import Any

import yaml

from cfg_lab.choose.budget import in_words
from experiments.record import Record, markdown_table, number_and_interval


def main(record: Record) -> None:
    """Make all tables of the record."""
    kept = record.folder / "choice.yaml"
    if (record.results / "choose").is_dir():
        shutil.copy(record.results / "choose" / "choice.yaml", kept)
    choice = yaml.safe_load(kept.read_text(encoding="utf-8"))
    record.table("conclusion", conclusion_table(choice))
    record.table("methods", methods_table(choice))
    record.table("time", time_table(choice))


def conclusion_table(choice: dict[str, Any]) -> str:
    """The sentences of the command, and what it recommends."""
    settings = {"recommended": "recommended", "best guided": "best_guided", "runner-up": "runner_up"}
    rows = [["", sentence] for sentence in choice["conclusion"]]
    rows += [[name, choice[key]["setting"]] for name, key in settings.items() if key in choice]
    return markdown_table(["", "sentence"], rows)


def methods_table(choice: dict[str, Any]) -> str:
    """One row per method."""
    rows = [
        [
            row["method"],
            f"{row['mean']:.3f}",
            *(_interval(row[key]) for key in _DIFFERENCES),
            "–" if row["p_holm"] is None else f"{row['p_holm']:.3g}",
        ]
        for row in choice["methods"]
    ]
    header = ["method", choice["column"], "change, choice", "change, held out", "best guided − this", "p"]
    return markdown_table(header, rows)


_DIFFERENCES = ("change_on_selection", "change_on_held_out", "best_guided_minus_this")


def time_table(choice: dict[str, Any]) -> str:
    """The parts of the budget."""
    seconds = choice["cost"]["seconds"]
    rows = [[part, in_words(used)] for part, used in {**seconds, "sum": sum(seconds.values())}.items()]
    return markdown_table(["part", "time"], rows)


def _interval(numbers: list[float] | None) -> str:
    return number_and_interval(*(numbers or [math.nan] * 3), sign=True)


if __name__ == "__main__":
    main(Record.of_command_line("choose"))

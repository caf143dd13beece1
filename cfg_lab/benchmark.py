"""Likelihood benchmarks under a grid of guidance: `python -m cfg_lab.benchmark`.

A benchmark asks questions with given answers. The model chooses the answer with the highest likelihood. The
answers are read once by each branch; every guidance rule of the grid is then evaluated on the same
distributions. So a grid of scales costs about as much as one scale.

    python -m cfg_lab.benchmark 'tasks=[hellaswag,boolq]' guidance.scale=1,1.5,2,3 negatives=last_token,empty
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import hydra
from omegaconf import DictConfig
from rich.markup import escape

from cfg_lab.commands import command_console, run_command, show_results, with_choices
from cfg_lab.options import CONFIG
from cfg_lab.study.console import errors_in_a_sentence
from cfg_lab.study.formats import count

_COLUMNS = ("acc", "majority", "acc_norm", "acc_raw", "acc_norm_raw", "acc_pmi", "chance", "answer_changed")
"""Columns of the printed table, the most important first."""


@hydra.main(config_path=str(CONFIG), config_name="benchmark", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run one config. Hydra calls this function only with another sweeper."""
    run_or_exit([with_choices(config)], [[]])


def run_or_exit(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[None]:
    """Call `run`. If the user can correct an error, print the error and exit with status 2."""
    with errors_in_a_sentence():
        run(configs, overrides)
    return [None] * len(configs)


def run(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run the benchmark of all configs, and show the results.

    Args:
        configs: the composed configs. Each gives one cell per task.
        overrides: for each config, its overrides "key=value".

    Returns:
        The rows of the summary, one per cell.
    """
    from cfg_lab.study.config import build
    from cfg_lab.study.labels import labels_of_overrides
    from cfg_lab.tasks.benchmark import build_benchmark
    from cfg_lab.tasks.packaged import PACKAGED
    from cfg_lab.tasks.run import run_benchmark

    console = command_console()
    benchmark = build_benchmark(configs, labels_of_overrides(overrides))
    tracker = build(configs[0], "tracking")
    console.print(
        f"[bold]{escape(benchmark.name)}[/]: {count(len(benchmark.cells), 'cell')}", highlight=False
    )
    for task in dict.fromkeys(cell.task for cell in benchmark.cells):
        if task in PACKAGED:
            line = f"{task}: {PACKAGED[task].difference}"
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    run_benchmark(benchmark, console)
    return show_results(benchmark, _COLUMNS, tracker, console, page=configs[0].report)


if __name__ == "__main__":
    run_command("benchmark", cast("Callable[[], None]", main))

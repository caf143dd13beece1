"""The main command, `python -m cfg_lab.sweep`: decode and score a grid of Hydra overrides.

The sweeper in hydra_plugins expands `a=1,2 b=x,y` to four cells, one for each combination of settings.
Hydra's launcher then decides where cells run:

- The launcher `batch` is the default. It calls `run_or_exit`, which decodes all cells as one batch in this
  process.
- Any other launcher starts one job per cell, and each job calls `run_job`. This process calls
  `run_in_jobs_or_exit`, which waits until all jobs have ended and then shows the results.
"""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import hydra
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, open_dict
from rich.console import Console
from rich.markup import escape

from cfg_lab.errors import InputError, TrackingError
from cfg_lab.options import CONFIG
from cfg_lab.study.config import check_overrides, composition_errors_in_a_sentence
from cfg_lab.study.console import (
    errors_in_a_sentence,
    fitting_table,
    open_console,
    print_paths,
    show_warnings,
)
from cfg_lab.study.formats import count

if TYPE_CHECKING:
    from cfg_lab.report.study_analysis import StudyAnalysis
    from cfg_lab.study.cell import Study
    from cfg_lab.track import Tracker


@hydra.main(config_path=str(CONFIG), config_name="sweep", version_base="1.3")
def main(config: DictConfig) -> None:
    """Decode and score one cell. Hydra calls this function only with another sweeper."""
    run_or_exit([_with_choices(config)], [[]])


def run_or_exit(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Call `run`. If the user can correct an error, print the error and exit with status 2."""
    with errors_in_a_sentence():
        return run(configs, overrides)


def run(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Decode and score all cells as one batch, and show the results.

    Args:
        configs: for each cell, its composed config.
        overrides: for each cell, its overrides "key=value". The label of a cell consists of the overrides
            that differ between cells.

    Returns:
        The rows of the summary, one per cell.
    """
    from cfg_lab.study.run import run_study

    console = _console()
    study, tracker = _study_and_tracker(configs, overrides)
    _introduce(study, "cell", console)
    run_study(study, console)
    return _show(study, tracker, console, page=configs[0].report)


def run_in_jobs_or_exit(
    configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]], launch: Callable[[], None]
) -> list[dict[str, Any]]:
    """Decode and score each cell in a job of its own, and show the results of all cells.

    If the user can correct an error, print the error and exit with status 2.

    Args:
        configs: for each cell, its composed config.
        overrides: for each cell, its overrides "key=value".
        launch: function that runs `run_job` for every cell. It returns when all jobs have ended. It raises an
            exception if a job has failed.

    Returns:
        The rows of the summary, one per cell.
    """
    from cfg_lab.study.run import write_provenance

    with errors_in_a_sentence():
        console = _console()
        study, tracker = _study_and_tracker(configs, overrides)
        study.store.check_version()
        study.store.check_writable()
        _introduce(study, "job", console)
        launch()
        write_provenance(study)  # replaces the files that the last job wrote
        return _show(study, tracker, console, page=configs[0].report)


def run_job(config: DictConfig, command: str) -> None:
    """Decode and score one cell. A launcher runs this function once per cell, each time in a job.

    Args:
        config: the config of the cell, without the node `hydra`.
        command: the command line of the sweep that the job belongs to.
    """
    from cfg_lab.decoding.model import NotANumberError
    from cfg_lab.study.build import build_study
    from cfg_lab.study.run import run_study

    try:
        run_study(build_study([_with_choices(config)], [{}], command), _console())
    except NotANumberError as error:
        raise InputError(str(error)) from error  # a NotANumberError cannot be sent to another process
    except Exception as error:
        error.add_note(traceback.format_exc())  # the traceback itself is lost between processes
        raise


def _with_choices(config: DictConfig) -> DictConfig:
    """Add the names of the chosen options to a job's config. Hydra removes the names before it runs a job."""
    with open_dict(config):
        config.hydra = {"runtime": {"choices": HydraConfig.get().runtime.choices}}
    return config


def _console() -> Console:
    console = open_console()
    show_warnings(console)
    return console


def _study_and_tracker(
    configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]
) -> tuple[Study, Tracker]:
    from cfg_lab.study.build import build_study
    from cfg_lab.study.config import build
    from cfg_lab.study.labels import labels_of_overrides

    return build_study(configs, labels_of_overrides(overrides)), build(configs[0], "tracking")


def _introduce(study: Study, unit: str, console: Console) -> None:
    """Print the study's name and size, and its negative phrases with the weights that were read."""
    from cfg_lab.study.prompts_in_words import phrases_in_words

    console.print(f"[bold]{escape(study.name)}[/]: {count(len(study.cells), unit)}", highlight=False)
    for sentence in phrases_in_words(study.cells):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _show(study: Study, tracker: Tracker, console: Console, *, page: bool) -> list[dict[str, Any]]:
    """Write the summary and print its table and the conclusion. Log the results, and print all paths.

    If `page` is true, also write the page (report.html). Returns the rows of the summary.
    """
    from cfg_lab.report.write import read_study, write_page
    from cfg_lab.study.run import summary_of
    from cfg_lab.study.scoring import main_columns
    from cfg_lab.track.mirror import mirror

    rows = cast("list[dict[str, Any]]", summary_of(study).to_dict("records"))
    labels = [cell.label for cell in study.cells]
    console.print(fitting_table(labels, rows, main_columns(study.metrics), console))
    root = study.store.root
    analysed = read_study(root)
    _print_conclusion(analysed, len(rows), console)
    path_of_page = write_page(analysed, root / "report.html") if page else None
    try:
        mirror(study.store, tracker, console, path_of_page)
    except TrackingError as error:
        for line in (
            str(error),
            "The results are on disk all the same.",
            f"To try again: python -m cfg_lab.track {root} {tracker.retry_hint}",
        ):
            console.print(line, style="yellow", markup=False, highlight=False, soft_wrap=True)
    paths = {"results": root, "summary": root / "summary.parquet"}
    runs = tracker.local_path(root)
    paths |= {tracker.name: runs} if runs else {}
    print_paths(console, paths | ({"page": path_of_page} if path_of_page else {}))
    return rows


def _print_conclusion(analysed: StudyAnalysis, cells: int, console: Console) -> None:
    """Print the first lines of the page. If the folder has more cells than the `cells` shown, say so."""
    all_cells = len(analysed.cells.ids)
    if analysed.conclusion and all_cells > cells:
        console.print(f"Conclusion from all {all_cells} cells of {analysed.record.name}:", markup=False)
    for line in analysed.conclusion:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def check_command_line(arguments: Sequence[str]) -> None:
    """Check overrides before Hydra reads them, because Hydra's messages do not say what would be right.

    Only the first cell is composed. `BatchLauncher` checks the other cells in the same way.

    Raises:
        InputError: an override cannot be read, or names a key or an option that does not exist.
    """
    if any(argument.startswith("-") for argument in arguments):
        return  # one of Hydra's own options, such as --help
    check_overrides(arguments)
    with composition_errors_in_a_sentence():
        parsed = OverridesParser.create().parse_overrides(list(arguments))
        ((first_cell, *_),) = BasicSweeper.split_arguments(parsed, None)
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            compose("sweep", overrides=list(first_cell))


if __name__ == "__main__":
    if any(argument.startswith("-") for argument in sys.argv[1:]) and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a traceback
    with errors_in_a_sentence():
        check_command_line(sys.argv[1:])
    cast("Callable[[], None]", main)()

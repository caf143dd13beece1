"""What the commands `cfg_lab.sweep` and `cfg_lab.benchmark` share: their start, and showing their results."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override
from omegaconf import DictConfig, open_dict
from rich.console import Console

from cfg_lab.errors import TrackingError
from cfg_lab.options import CONFIG
from cfg_lab.prompts.files import FILE_ENDINGS
from cfg_lab.study.config import check_overrides, composition_errors_in_a_sentence
from cfg_lab.study.console import (
    errors_in_a_sentence,
    fitting_table,
    open_console,
    print_paths,
    show_warnings,
)

if TYPE_CHECKING:
    from cfg_lab.report.study_analysis import StudyAnalysis
    from cfg_lab.study.cell import StoredStudy
    from cfg_lab.track import Tracker


def run_command(config_name: str, main: Callable[[], None]) -> None:
    """Check the command line, and let Hydra run the command. The user's errors are printed as one sentence.

    Args:
        config_name: name of the command's config in conf, such as "sweep".
        main: the function decorated by `hydra.main`.
    """
    if any(argument.startswith("-") for argument in sys.argv[1:]) and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `--help | head` ends without a traceback
    sys.argv[1:] = with_prompt_file(sys.argv[1:])
    with errors_in_a_sentence():
        check_command_line(sys.argv[1:], config_name)
    main()


def with_prompt_file(arguments: Sequence[str]) -> list[str]:
    """Write `prompts=mine.jsonl` as `prompts=file prompts.path=mine.jsonl`, for one file or several.

    Args:
        arguments: the arguments of a command.
    """
    written: list[str] = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        files = [file.strip("\"'") for file in value.split(",")]
        if key == "prompts" and all(file.lower().endswith(FILE_ENDINGS) for file in files):
            quoted = ['"' + file.replace('"', r"\"") + '"' for file in files]
            written += ["prompts=file", f"prompts.path={','.join(quoted)}"]
        else:
            written.append(argument)
    return written


def check_command_line(arguments: Sequence[str], config_name: str) -> None:
    """Check overrides before Hydra reads them, because Hydra's messages do not say what would be right.

    Only the first cell is composed. `BatchLauncher` checks the other cells in the same way.

    Args:
        arguments: the arguments of the command.
        config_name: name of the command's config in conf.

    Raises:
        InputError: an override cannot be read, or names a key or an option that does not exist.
    """
    if any(argument.startswith("-") for argument in arguments):
        return  # one of Hydra's own options, such as --help
    check_overrides(arguments)
    with composition_errors_in_a_sentence():
        parser = OverridesParser.create()
        parsed = [_with_one_value(override, parser) for override in parser.parse_overrides(list(arguments))]
        ((first_cell, *_),) = BasicSweeper.split_arguments(parsed, None)
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            compose(config_name, overrides=list(first_cell))


def _with_one_value(override: Override, parser: OverridesParser) -> Override:
    """The override itself; of a search's interval(1,5), the override with the lower end."""
    value = override.value()
    if not isinstance(value, IntervalSweep):
        return override
    return parser.parse_override(f"{override.get_key_element()}={value.start}")


def with_choices(config: DictConfig) -> DictConfig:
    """Add the names of the chosen options to a job's config. Hydra removes the names before it runs a job."""
    with open_dict(config):
        config.hydra = {"runtime": {"choices": HydraConfig.get().runtime.choices}}
    return config


def command_console() -> Console:
    """The console of a command. From now on it also shows warnings."""
    console = open_console()
    show_warnings(console)
    return console


def show_results(
    study: StoredStudy,
    columns: Sequence[str],
    tracker: Tracker,
    console: Console,
    *,
    page: bool,
    conclude: bool = True,
) -> list[dict[str, Any]]:
    """Write the summary and print its table and the conclusion. Log the results, and print all paths.

    Args:
        study: the study; all its cells are stored.
        columns: the columns of metrics in the table, the most important first.
        tracker: where results are logged.
        console: where to print.
        page: whether to write the page (report.html).
        conclude: whether to print the conclusion. A command that has a conclusion of its own does not.

    Returns:
        The rows of the summary, one per cell.
    """
    from cfg_lab.report.write import read_study, write_page
    from cfg_lab.study.run import summary_of
    from cfg_lab.track.mirror import mirror

    rows = cast("list[dict[str, Any]]", summary_of(study).to_dict("records"))
    console.print(fitting_table([cell.label for cell in study.cells], rows, columns, console))
    root = study.store.root
    analysed = read_study(root)
    if conclude:
        _print_conclusion(analysed, len(rows), console)
    path_of_page = write_page(analysed, study.store, root / "report.html") if page else None
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

"""The main command, `python -m cfg_lab.sweep`: decode and score a grid of Hydra overrides.

The sweeper in hydra_plugins expands `a=1,2 b=x,y` to four cells, one for each combination of settings.
Hydra's launcher then decides where cells run:

- The launcher `batch` is the default. It calls `run_or_exit`, which decodes all cells as one batch in this
  process.
- The launchers `slurm` and `local` call `run_on_workers_or_exit`, which decodes shards of the texts in many
  processes.
- Any other launcher starts one job per cell, and each job calls `run_job`. This process calls
  `run_in_jobs_or_exit`, which waits until all jobs have ended and then shows the results.
"""

from __future__ import annotations

import shlex
import sys
import time
import traceback
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import hydra
from filelock import FileLock, Timeout
from omegaconf import DictConfig
from rich.console import Console
from rich.markup import escape

from cfg_lab.commands import command_console, run_command, show_results, with_choices
from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG
from cfg_lab.study.config import auto_dtypes, plain_config
from cfg_lab.study.console import errors_in_a_sentence, open_console, print_error
from cfg_lab.study.formats import count

if TYPE_CHECKING:
    from cfg_lab.study.cell import Study
    from cfg_lab.track import Tracker
    from cfg_lab.workers.engine import Engine
    from cfg_lab.workers.follow import Status
    from cfg_lab.workers.submission import Submission


@hydra.main(config_path=str(CONFIG), config_name="sweep", version_base="1.3")
def main(config: DictConfig) -> None:
    """Decode and score one cell. Hydra calls this function only with another sweeper."""
    run_or_exit([with_choices(config)], [[]])


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
    from cfg_lab.study.scoring import main_columns

    console = command_console()
    study, tracker = _study_and_tracker(configs, overrides)
    _introduce(study, "cell", console)
    run_study(study, console)
    return show_results(study, main_columns(study.metrics), tracker, console, page=configs[0].report)


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
    from cfg_lab.study.scoring import main_columns

    with errors_in_a_sentence():
        console = command_console()
        study, tracker = _study_and_tracker(configs, overrides)
        study.store.check_version()
        study.store.check_writable()
        _introduce(study, "job", console)
        launch()
        write_provenance(study)  # replaces the files that the last job wrote
        return show_results(study, main_columns(study.metrics), tracker, console, page=configs[0].report)


def run_on_workers_or_exit(
    configs: Sequence[DictConfig],
    overrides: Sequence[Sequence[str]],
    engine: Engine,
    *,
    retries: int,
    wait: bool,
) -> None:
    """Decode and score all cells on the workers of an engine, and show the results.

    If the user can correct an error, print the error and exit with status 2. If some texts failed, show the
    results of the others, name what failed, and exit with status 1. After Ctrl-C the workers go on.

    Args:
        configs: for each cell, its composed config.
        overrides: for each cell, its overrides "key=value".
        engine: the engine that runs the jobs.
        retries: how often failed jobs are submitted again.
        wait: whether to wait for the results. If not, return when the jobs are submitted.
    """
    from cfg_lab.workers.follow import follow
    from cfg_lab.workers.submit import submit

    with errors_in_a_sentence():
        console = command_console()
        check_dtypes(configs, engine)
        study, tracker = _study_and_tracker(configs, overrides)
        _introduce(study, "cell", console)
        finish = partial(finish_on_worker, tracker=tracker, page=configs[0].report)
        submission = submit(study, engine, finish, retries, console)
        watch = f"python -m cfg_lab.status {shlex.quote(str(study.store.root))} --watch"
        stop = submission.stop_command()  # the jobs that come later have other numbers
        for line in (f"watch: {watch}", f"stop:  {stop}  (later: the command that cfg_lab.status prints)"):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        if not wait:
            return
        try:
            with _progress_log(submission, study, tracker) as log:
                failed = follow(submission, console, log)
        except KeyboardInterrupt:
            errors = open_console(stderr=True)
            errors.print("\nThe workers go on. The same command again shows their progress.", highlight=False)
            sys.exit(130)
    if failed:
        errors = open_console(stderr=True)
        for sentence in failed:
            print_error(errors, sentence)
        errors.print("The same command again tries what failed once more.", highlight=False)
        sys.exit(1)


def decode_on_workers(study: Study, engine: Engine, retries: int, console: Console) -> None:
    """Decode and score a study on the workers of an engine, and wait. Nothing is shown of the results.

    Raises:
        InputError: some texts failed. The message names the first; the others are printed.
    """
    from cfg_lab.workers.follow import follow
    from cfg_lab.workers.submit import submit

    submission = submit(study, engine, show_nothing, retries, console)
    if failed := follow(submission, console):
        for sentence in failed[1:]:
            print_error(open_console(stderr=True), sentence)
        raise InputError(f"{failed[0]}; the same command again tries what failed once more")


def show_nothing(study: Study, console: Console) -> None:
    """What the last job of a batch of a search does: the search itself shows the results."""


@contextmanager
def _progress_log(
    submission: Submission, study: Study, tracker: Tracker
) -> Generator[Callable[[Status], None]]:
    """A function that logs the progress of a submission to the tracker, from time to time.

    If another command follows the submission as well, only one of them logs it.
    """
    from cfg_lab.track.progress import open_progress

    lock = FileLock(submission.folder / ".progress.lock", blocking=False)
    try:
        lock.acquire()
    except Timeout:
        yield lambda _: None
        return
    began = datetime.fromisoformat(submission.plan().started).timestamp()
    last_time = 0.0
    with lock, open_progress(tracker, study.name, submission.id, study.store.root, began) as progress:

        def log(status: Status) -> None:
            nonlocal last_time
            if time.monotonic() - last_time > _SECONDS_BETWEEN_LOGS:
                last_time = time.monotonic()
                progress.log({name: getattr(status, name) for name in _LOGGED})

        yield log


_SECONDS_BETWEEN_LOGS = 15

_LOGGED = ("texts_done", "texts_total", "tokens_per_second", "jobs_running", "jobs_waiting", "shards_failed")
"""The attributes of `Status` that trackers show while a sweep runs on many workers."""


def finish_on_worker(study: Study, console: Console, *, tracker: Tracker, page: bool) -> None:
    """Show and log the results of a study. The last job of a submission calls this function.

    Cells are left out if none of their texts could be decoded.
    """
    from cfg_lab.study.scoring import main_columns

    rows = study.store.cells([cell.id for cell in study.cells])
    decoded = set(rows.loc[rows["completion"].isin(study.store.completion_ids()), "cell"])
    study = replace(study, cells=[cell for cell in study.cells if cell.id in decoded])
    if not study.cells:
        return
    show_results(study, main_columns(study.metrics), tracker, console, page=page)


def check_dtypes(configs: Sequence[DictConfig], engine: Engine) -> None:
    """Check that the machine that plans the sweep and its workers choose the same dtype for dtype=auto.

    Raises:
        InputError: a dtype is auto, and either the workers or this machine have GPUs, but not both.
    """
    import torch

    here = torch.cuda.is_available()
    if engine.uses_gpus == here:
        return
    for config in configs:
        for key in auto_dtypes(plain_config(config)):
            raise InputError(
                f"{key} is auto, which is bfloat16 with a GPU and float32 without; this machine has "
                f"{'a' if here else 'no'} GPU, and the workers have {'none' if here else 'GPUs'}; set "
                f"{key} to the dtype of the workers"
            )


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
        run_study(build_study([with_choices(config)], [{}], command), command_console())
    except NotANumberError as error:
        raise InputError(str(error)) from error  # a NotANumberError cannot be sent to another process
    except Exception as error:
        error.add_note(traceback.format_exc())  # the traceback itself is lost between processes
        raise


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


if __name__ == "__main__":
    run_command("sweep", cast("Callable[[], None]", main))

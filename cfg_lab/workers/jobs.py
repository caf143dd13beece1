"""What the jobs of a submission do. Each job is a small object that is pickled, and that a worker calls.

The jobs of a submission follow each other in two stages. After the jobs of a stage, one job `NextStage` runs.

1. `Shards` decode and score texts. Then `NextStage` submits failed shards again, up to `retries` times.
2. `Cells` compute the metrics that score all texts of a cell together. Failed ones are submitted again, too.

At the end, `NextStage` shows and logs the results, and writes end.json.
"""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
import traceback
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
from rich.console import Console
from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from cfg_lab.errors import InputError, StoreError
from cfg_lab.metrics import Metric, needs_whole_cell
from cfg_lab.study.cell import Study
from cfg_lab.study.columns import CELL_COLUMNS, row
from cfg_lab.study.console import open_console, show_warnings
from cfg_lab.study.formats import count
from cfg_lab.study.merge import merge_small_files
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.run import decode_model
from cfg_lab.study.scoring import score_rows, unscored_cells
from cfg_lab.workers.engine import Engine, Job
from cfg_lab.workers.shards import Shard
from cfg_lab.workers.submission import Submission, Work, submissions

_MANY_FILES = 1000
"""A results folder with more files than this is slow to read."""


class _Resumed(ABC):
    """A job that writes what is finished when a signal ends it. Called again, it does what is missing."""

    @abstractmethod
    def __call__(self) -> None: ...

    def checkpoint(self) -> DelayedSubmission:
        """The job that goes on after a time limit or a preemption: the same job.

        submitit calls this method when the signal before the time limit arrives, and then ends the process.
        """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # Slurm sends it too, while results are being written
        return DelayedSubmission(self)


@dataclass(frozen=True)
class Shards(_Resumed):
    """Decodes and scores shards, one after another. If a shard fails, the next ones still run.

    Attributes:
        submission: the submission.
        numbers: numbers of the shards.
    """

    submission: Submission
    numbers: tuple[int, ...]

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, _stop)
        study = self.submission.work().study
        console = _console()

        def run(number: int) -> None:
            if number not in self.submission.done():
                run_shard(study, self.submission.shard(number), console)
                self.submission.mark_done(number)

        _run_each(self.submission, {f"shard {number}": partial(run, number) for number in self.numbers})


@dataclass(frozen=True)
class Cells(_Resumed):
    """Computes the metrics that score all texts of a cell together. If a cell fails, the next ones still run.

    Attributes:
        submission: the submission.
        ids: ids of the cells.
    """

    submission: Submission
    ids: tuple[str, ...]

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, _stop)
        study = self.submission.work().study
        metrics, console = _metrics_of_cells(study), _console()

        def run(cell: str) -> None:
            score_rows(study.store, metrics, study.store.cells([cell]), console)

        _run_each(self.submission, {f"cell {cell}": partial(run, cell) for cell in self.ids})


def _run_each(submission: Submission, parts: Mapping[str, Callable[[], None]]) -> None:
    """Run all parts of a job, and note which of them failed.

    Args:
        submission: the submission.
        parts: what a part is, as in `Submission.failures`, and the part.

    Raises:
        RuntimeError: a part failed. All others have run.
    """
    failed: list[str] = []
    for what, part in parts.items():
        try:
            part()
        except Exception as error:
            traceback.print_exc()
            failed.append(what)
            submission.mark_failed(what, _sentence(error), _log())
        else:
            submission.forget_failure(what)
    if failed:
        raise RuntimeError(f"failed: {', '.join(failed)}")


def _metrics_of_cells(study: Study) -> list[Metric]:
    return [metric for metric in study.metrics if needs_whole_cell(metric)]


@dataclass(frozen=True)
class NextStage:
    """Runs after the jobs of a stage. Submits the jobs that come next, or ends the submission.

    Attributes:
        submission: the submission.
        stage: the stage whose jobs have ended: "texts" or "cells".
        attempt: number of times that the unfinished jobs of the stage have been submitted.
        array: name of the array of these jobs; "" if none was submitted.
        shards: for each job of the array, the numbers of its shards.
    """

    submission: Submission
    stage: str
    attempt: int
    array: str = ""
    shards: tuple[tuple[int, ...], ...] = ()

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, _stop)
        try:
            self._next()
        except Exception as error:
            traceback.print_exc()
            last = f"the last job: {_sentence(error)}; its messages are in {_log()}"
            self._end([*self.submission.failures_in_words(), last])
            raise

    def checkpoint(self) -> DelayedSubmission:
        """As `_Resumed.checkpoint`. This job has nothing to write."""
        return DelayedSubmission(self)

    def _next(self) -> None:
        work = self.submission.work()
        if arrays := self._unended_arrays():
            # This job runs again when these jobs have ended.
            submit_array(self.submission, work.engine, "next", [self], after=arrays)
            return
        failed: list[str] = []
        if self.stage == "texts":
            unfinished = self._unfinished_shards()
            if unfinished and self.attempt <= work.retries:
                try:
                    submit_shards(self.submission, work.engine, unfinished, self.attempt + 1)
                    return
                except InputError as error:
                    failed.append(f"failed shards were not tried again: {error}")
            self._explain_silent_failures(work.engine, unfinished)
        cells = self._unscored_cells(work.study)
        attempt = self.attempt if self.stage == "cells" else 0
        if cells and attempt <= work.retries:
            try:
                submit_cells(self.submission, work.engine, cells, attempt + 1)
                return
            except InputError:  # nothing can be submitted from here: this job does the work
                with suppress(RuntimeError):  # what failed is noted
                    Cells(self.submission, tuple(cells))()
                cells = self._unscored_cells(work.study)
        if cells:
            failed.append(f"some metrics of {count(len(cells), 'cell')} are missing: {', '.join(cells)}")
        if work.study.store.completion_ids():
            self._show_results(work)
        self._end([*self.submission.failures_in_words(), *failed])

    def _show_results(self, work: Work) -> None:
        store = work.study.store
        if len([*store.root.glob("*/*.parquet")]) > _MANY_FILES:
            with suppress(StoreError):  # the results are complete without it
                merge_small_files(store)
        with self.submission.results.open("w", encoding="utf-8") as file:
            console = Console(file=file, width=work.width)
            show_warnings(console)
            work.finish(work.study, console)

    def _unended_arrays(self) -> list[str]:
        """Names of the arrays to wait for.

        They are the arrays of the submissions that decode or score some of the texts. If this job was
        preempted after it had submitted the next stage, they are also the arrays of that stage.
        """
        waits_for = self.submission.plan().waits_for
        others = [other for other in submissions(self.submission.store) if other.id in waits_for]
        states = [state for other in others if other.end() is None for state in other.states()]
        own = [state for state in self.submission.states() if not state.name.endswith("next")]
        return sorted({state.name for state in (*states, *own)})

    def _unfinished_shards(self) -> list[int]:
        done = self.submission.done()
        return [number for number in range(self.submission.plan().shard_count) if number not in done]

    def _explain_silent_failures(self, engine: Engine, unfinished: Sequence[int]) -> None:
        """Note an error for each unfinished shard that has none: its process was killed."""
        noted = self.submission.failures()
        for index, numbers in enumerate(self.shards):
            for number in sorted(set(numbers) & set(unfinished)):
                if f"shard {number}" in noted:
                    continue
                log = engine.log(self.submission.folder, self.array, index)
                sentence = (
                    "its process ended without an error message; perhaps it was killed or out of memory"
                )
                self.submission.mark_failed(f"shard {number}", sentence, log)

    def _unscored_cells(self, study: Study) -> list[str]:
        metrics = _metrics_of_cells(study)
        return unscored_cells(study.store, metrics, self.submission.plan().cells) if metrics else []

    def _end(self, failed: Sequence[str]) -> None:
        self.submission.write("end.json", json.dumps({"failed": list(failed)}))


def run_shard(study: Study, shard: Shard, console: Console) -> None:
    """Decode and score the texts of a shard that are not decoded and scored yet.

    Raises:
        InputError: the model is not the one that the sweep was planned with.
    """
    load = next(cell.model for cell in study.cells if cell.model_key == shard.model_key)
    model = load()
    if model.fingerprint != shard.fingerprint:
        raise InputError(
            f"model {model.name!r} has the fingerprint {model.fingerprint} on this machine, and "
            f"{shard.fingerprint} where the sweep was planned; use the same files on all machines, and set "
            "model.dtype if only some of them have a GPU"
        )
    decoded = set(study.store.completion_table(["id"], shard.completion_ids)["id"].to_pylist())
    missing = {text.completion_id: text for text in shard.texts if text.completion_id not in decoded}
    if missing:
        total = sum(text.request.max_new_tokens for text in missing.values())
        with ProgressBar(console, "decoding", total, "tokens") as bar:
            decode_model(study, model, list(missing.values()), bar)
        model.unload()
    metrics = [metric for metric in study.metrics if not needs_whole_cell(metric)]
    rows = pd.DataFrame([row(CELL_COLUMNS, text) for text in shard.texts])
    score_rows(study.store, metrics, rows.assign(cell=""), console)


def submit_shards(submission: Submission, engine: Engine, numbers: Sequence[int], attempt: int) -> None:
    """Submit shards, and the job that comes after them.

    Args:
        submission: the submission.
        engine: the engine that runs the jobs.
        numbers: numbers of the shards.
        attempt: number of times that these shards will have been submitted.

    Raises:
        InputError: the engine refuses the jobs. Then none of them runs.
    """
    shards = tuple(map(tuple, engine.shards_of_jobs(numbers)))
    array = submit_array(submission, engine, "texts", [Shards(submission, job) for job in shards])
    _submit_next(submission, engine, NextStage(submission, "texts", attempt, array, shards))


def submit_cells(submission: Submission, engine: Engine, cells: Sequence[str], attempt: int) -> None:
    """Submit the metrics of whole cells, and the job that comes after them.

    Args:
        submission, engine, attempt: as for `submit_shards`.
        cells: ids of the cells.

    Raises:
        InputError: as for `submit_shards`.
    """
    parts = [cells[start :: engine.shard_count] for start in range(min(len(cells), engine.shard_count))]
    jobs = [
        Cells(submission, tuple(cell for number in numbers for cell in parts[number]))
        for numbers in engine.shards_of_jobs(range(len(parts)))
    ]
    array = submit_array(submission, engine, "cells", jobs)
    _submit_next(submission, engine, NextStage(submission, "cells", attempt, array))


def _submit_next(submission: Submission, engine: Engine, next_stage: NextStage) -> None:
    """Submit the job that comes after an array. If the engine refuses the job, end the array."""
    try:
        submit_array(submission, engine, "next", [next_stage], after=[next_stage.array])
    except InputError:
        subprocess.run(shlex.split(engine.stop_command(submission.folder, next_stage.array)), check=False)
        raise


def submit_array(
    submission: Submission, engine: Engine, stage: str, jobs: Sequence[Job], after: Sequence[str] = ()
) -> str:
    """Submit an array of jobs under a new name, and return the name. `after` is as in `Engine.submit`."""
    number = len([*submission.folder.glob(f"{submission.prefix}*")])
    name = f"{submission.prefix}{number}-{stage}"
    engine.submit(name, submission.folder, jobs, after)
    return name


def _stop(*_: object) -> None:
    """End this process after a signal that asks for it. What is finished is written before.

    submitit ignores the signal, so that Slurm would kill the process some time later.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.exit("ended by a signal; what was finished is written")


def _console() -> Console:
    console = open_console()
    show_warnings(console)
    return console


def _log() -> Path:
    """The file of the messages of this job."""
    return JobEnvironment().paths.stdout


def _sentence(error: Exception) -> str:
    return " ".join((str(error) or type(error).__name__).split())

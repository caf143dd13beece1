"""Submits a sweep: plans it, and submits what is neither done nor running."""

from __future__ import annotations

import pickle
import platform
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from shutil import rmtree

from filelock import FileLock
from rich.console import Console

from cfg_lab.errors import InputError
from cfg_lab.metrics import needs_whole_cell, scorer_key
from cfg_lab.study.cell import Study
from cfg_lab.study.run import PreparedStudy, prepare_study
from cfg_lab.workers.engine import Engine
from cfg_lab.workers.jobs import NextStage, submit_array, submit_shards
from cfg_lab.workers.shards import cut
from cfg_lab.workers.submission import FOLDER, Plan, Submission, TextIds, Work, active


def submit(
    study: Study, engine: Engine, finish: Callable[[Study, Console], None], retries: int, console: Console
) -> Submission:
    """Check and plan a study, and submit the texts that are neither done nor running.

    If a running submission decodes and scores all unfinished texts of the study, nothing is submitted.

    Args:
        study: the study.
        engine: the engine that runs the jobs.
        finish: shows and logs the results of the study. The last job calls it, in another process.
        retries: how often failed jobs are submitted again, at least 0.
        console: where to print.

    Returns:
        The new submission, or the submission in which the study runs already.

    Raises:
        InputError: something in the study is wrong, and nothing was submitted; or jobs of another engine use
            the results folder.
    """
    # Models and metrics are loaded later, so that their weights are not pickled.
    work = pickle.dumps(Work(study=study, engine=engine, retries=retries, finish=finish, width=console.width))
    prepared = prepare_study(study, console)
    store = study.store
    (store.root / FOLDER).mkdir(exist_ok=True)
    with FileLock(store.root / FOLDER / ".lock"):  # two commands at once submit one after the other
        running = active(store)
        for other in running:
            present = other.plan().engine
            if present != engine.name:
                raise InputError(
                    f"hydra/launcher is {engine.name}, but jobs of hydra/launcher={present} work on "
                    f"{str(store.root)!r}; wait for them, or end them: {other.stop_command()}"
                )
            if not other.has_last_job():  # the command that submitted it was killed meanwhile
                # Attempt 0, because not all jobs before it may be submitted.
                submit_array(other, other.work().engine, "next", [NextStage(other, "texts", 0)])
        decoded = store.completion_ids()
        undecoded = {text for texts in prepared.missing.values() for text in texts} - decoded
        unfinished = undecoded | _unscored(study, prepared)
        shared = {other: unfinished & set(chain(*other.texts().of_shards)) for other in running}
        for other, texts in shared.items():
            if texts == unfinished and _contains(other.plan(), study):
                console.print(f"the jobs of submission {other.id} do this already", highlight=False)
                return other
        taken = set(chain(*shared.values()))
        free = cut(prepared, unfinished - taken, decoded, engine.shard_count)
        # When the other submissions have ended, little of these texts is left to do.
        later = cut(prepared, taken, decoded, engine.worker_count)
        shards = [*free, *later]
        submission = Submission(store, secrets.token_hex(4))
        plan = Plan(
            started=datetime.now(UTC).isoformat(timespec="milliseconds"),
            command=study.command,
            engine=engine.name,
            host=platform.node(),
            cells=[cell.id for cell in study.cells],
            metrics=sorted(map(scorer_key, study.metrics)),
            text_count=len({text.completion_id for texts in prepared.plans.values() for text in texts}),
            undecoded_count=len(undecoded),
            shard_count=len(shards),
            waits_for=[other.id for other, texts in shared.items() if texts],
        )
        texts = TextIds(undecoded=sorted(undecoded), of_shards=[shard.completion_ids for shard in shards])
        submission.write_plan(plan, texts, work, shards)
        try:
            if free:
                submit_shards(submission, engine, range(len(free)), 0 if later else 1)
            else:
                submit_array(submission, engine, "next", [NextStage(submission, "texts", 0)])
        except InputError:
            if not submission.states():
                rmtree(submission.folder)
            raise
    return submission


def _contains(plan: Plan, study: Study) -> bool:
    """Whether a submission has all cells and all metrics of a study."""
    cells = {cell.id for cell in study.cells}
    return cells <= set(plan.cells) and set(map(scorer_key, study.metrics)) <= set(plan.metrics)


def _unscored(study: Study, prepared: PreparedStudy) -> set[str]:
    """Ids of the texts that lack scores of a metric that scores each text by itself."""
    scored_texts = study.store.scored_texts()
    unscored: set[str] = set()
    for metric in study.metrics:
        if not needs_whole_cell(metric):
            key = scorer_key(metric)
            scored = set(scored_texts[key].to_pylist()) if key in scored_texts else set[str]()
            unscored |= {
                text.completion_id
                for texts in prepared.plans.values()
                for text in texts
                if text.score_id not in scored
            }
    return unscored

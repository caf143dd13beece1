"""The files of one submission: what was submitted, which shards are done, and how it ended.

    results/<name>/jobs/<id>/
        plan.json          command, engine, cells and metrics; see `Plan`
        texts.json         the ids of the texts of each shard; see `TextIds`
        work.pkl           the study and the engine, for the jobs
        shard-<n>.pkl      the texts of a shard, for its job
        done/<n>           shard n is decoded and scored
        failed/….json      the last error of a shard or a cell, and the file of its messages
        results.txt        what `finish` printed: the table of the results
        end.json           the submission has ended: its failed shards
        cfg_lab-<id>-…/    the files of submitit, with the messages of the jobs (…_log.out)

<id> is a random name. The names of the jobs contain it, so that an engine finds the jobs which wait or run.
"""

from __future__ import annotations

import json
import os
import pickle
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from cfg_lab.errors import InputError
from cfg_lab.study.cell import Study
from cfg_lab.study.store import Store
from cfg_lab.workers.engine import Engine, JobState
from cfg_lab.workers.local import LocalEngine
from cfg_lab.workers.shards import Shard
from cfg_lab.workers.slurm import SlurmEngine

FOLDER = "jobs"
"""Name of the folder of all submissions, inside a results folder."""

_ENGINES: Mapping[str, Engine] = {"slurm": SlurmEngine(), "local": LocalEngine()}
"""Engines by their names. They find the jobs of a submission, whatever its engine's settings were."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What the jobs of a submission need to know. It is pickled.

    Attributes:
        study: the study.
        engine: the engine that runs the jobs.
        retries: how often failed jobs are submitted again, at least 0.
        finish: shows and logs the results of the study. The last job calls it, with a console that writes to
            a file.
        width: width of that console, in characters.
    """

    study: Study
    engine: Engine
    retries: int
    finish: Callable[[Study, Console], None]
    width: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was submitted: the content of plan.json.

    Attributes:
        started: time of the submission, ISO 8601, UTC.
        command: the command line of the sweep.
        engine: name of the engine.
        host: name of the machine on which the sweep was submitted.
        cells: ids of the cells of the study.
        metrics: keys of the metrics of the study, see `cfg_lab.metrics.scorer_key`.
        text_count: number of texts of the study, each counted once.
        undecoded_count: number of texts that were not decoded when the sweep was submitted.
        shard_count: number of shards.
        waits_for: ids of other submissions that decode or score some of these texts.
    """

    started: str
    command: str
    engine: str
    host: str
    cells: list[str]
    metrics: list[str]
    text_count: int
    undecoded_count: int
    shard_count: int
    waits_for: list[str]


@dataclass(frozen=True, kw_only=True)
class TextIds:
    """The ids of the texts of a submission: the content of texts.json. It can have a million ids.

    Attributes:
        undecoded: the texts that were not decoded when the sweep was submitted.
        of_shards: for each shard, its texts.
    """

    undecoded: list[str]
    of_shards: list[list[str]]


@dataclass(frozen=True)
class Submission:
    """One submission of a sweep, as its files describe it.

    Attributes:
        store: the results folder.
        id: id of the submission.
    """

    store: Store
    id: str

    @property
    def folder(self) -> Path:
        """The folder of the submission, as an absolute path. Engines know the jobs by it."""
        return (self.store.root / FOLDER / self.id).resolve()

    def write(self, name: str, content: str | bytes) -> None:
        """Write a file of the submission, completely or not at all."""
        path = f"{FOLDER}/{self.id}/{name}"
        if isinstance(content, str):
            self.store.write_text(path, content)
        else:
            self.store.write_bytes(path, content)

    # What was submitted

    def write_plan(self, plan: Plan, texts: TextIds, work: bytes, shards: Sequence[Shard]) -> None:
        """Write what the jobs need. This is done before they are submitted.

        Args:
            plan: the content of plan.json.
            texts: the content of texts.json.
            work: a pickled `Work`.
            shards: the shards.
        """
        self.write("texts.json", json.dumps(asdict(texts)))
        self.write("work.pkl", work)
        for number, shard in enumerate(shards):
            self.write(f"shard-{number}.pkl", pickle.dumps(shard))
        self.write("plan.json", json.dumps(asdict(plan)))

    def plan(self) -> Plan:
        """Read plan.json."""
        return Plan(**json.loads((self.folder / "plan.json").read_text(encoding="utf-8")))

    def texts(self) -> TextIds:
        """Read texts.json."""
        return TextIds(**json.loads((self.folder / "texts.json").read_text(encoding="utf-8")))

    def work(self) -> Work:
        """Read what the jobs need to know."""
        return pickle.loads((self.folder / "work.pkl").read_bytes())

    def shard(self, number: int) -> Shard:
        """Read the texts of a shard."""
        return pickle.loads((self.folder / f"shard-{number}.pkl").read_bytes())

    # Jobs

    @property
    def prefix(self) -> str:
        """Beginning of the names of all jobs of the submission."""
        return f"cfg_lab-{self.id}-"

    def states(self) -> list[JobState]:
        """The jobs that wait or run."""
        return self.engine.states(self.folder, self.prefix)

    def has_last_job(self) -> bool:
        """Whether a job that comes after the others is submitted completely.

        If the command is killed while it submits this job, the job may run, but does not find its task:
        submitit gives the file of the task its name at the end.
        """
        return any(self.folder.glob("*-next/**/*_submitted.pkl"))

    def stop_command(self) -> str:
        """The shell command that ends all jobs of the submission."""
        return self.engine.stop_command(self.folder, self.prefix)

    @property
    def engine(self) -> Engine:
        """An engine that finds the jobs of the submission."""
        return _ENGINES[self.plan().engine]

    # What was done

    def done(self) -> set[int]:
        """Numbers of the shards that are decoded and scored."""
        return {int(path.name) for path in (self.folder / "done").glob("[!.]*")}

    def mark_done(self, shard: int) -> None:
        """Note that a shard is decoded and scored."""
        self.write(f"done/{shard}", "")

    def failures(self) -> dict[str, dict[str, str]]:
        """What failed, and did not succeed later: "shard 3" or "cell 1a2b" -> its last error.

        An error is {"error": a sentence, "log": the file of the job's messages}.
        """
        paths = sorted((self.folder / "failed").glob("[!.]*.json"))
        return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}

    def forget_failure(self, what: str) -> None:
        """Note that something which may have failed before has succeeded. `what` is as in `failures`."""
        (self.folder / "failed" / f"{what}.json").unlink(missing_ok=True)

    def failures_in_words(self) -> list[str]:
        """One sentence for each of `failures`: what failed, its error, and where its messages are."""
        return [
            f"{what}: {failure['error']}; its messages are in {failure['log']}"
            for what, failure in self.failures().items()
        ]

    def mark_failed(self, what: str, error: str, log: Path | str) -> None:
        """Note an error. `what` is as in `failures`, and `log` is the file of the job's messages."""
        self.write(f"failed/{what}.json", json.dumps({"error": error, "log": str(log)}))

    def end(self) -> dict[str, list[str]] | None:
        """How the submission ended; None if it has not ended.

        Returns:
            failed: one sentence for each shard and each job that failed.
        """
        if "end.json" not in os.listdir(self.folder):  # a list is new, also on a network file system
            return None
        return json.loads((self.folder / "end.json").read_text(encoding="utf-8"))

    @property
    def results(self) -> Path:
        """The file with what the last job printed about the results."""
        return self.folder / "results.txt"


def submissions(store: Store) -> list[Submission]:
    """All submissions of a results folder, the oldest first."""
    paths = sorted((store.root / FOLDER).glob("*/plan.json"), key=lambda path: path.stat().st_mtime)
    return [Submission(store, path.parent.name) for path in paths]


def active(store: Store) -> list[Submission]:
    """The submissions that have not ended and have jobs, the oldest first.

    Raises:
        InputError: a submission runs as processes of another machine, which cannot be seen from this one.
    """
    unended = [submission for submission in submissions(store) if submission.end() is None]
    for submission in unended:
        plan = submission.plan()
        if plan.engine == "local" and plan.host != platform.node():
            raise InputError(
                f"processes of the machine {plan.host!r} may work on {str(store.root)!r}; run the command "
                f"there, or delete {submission.folder} if they have ended"
            )
    return [submission for submission in unended if submission.states()]

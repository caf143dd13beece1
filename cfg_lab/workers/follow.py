"""How far a submission is, and following it until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from cfg_lab.errors import StoreError
from cfg_lab.study.formats import count, three_digits
from cfg_lab.study.progress import ProgressBar
from cfg_lab.workers.submission import Plan, Submission

_SECONDS_BETWEEN_CHECKS = 2.0

_CHECKS_WITHOUT_JOBS = 5
"""Number of checks after which a submission without jobs and without an end has been ended from outside."""


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a submission is.

    Attributes:
        texts_done: number of texts that are decoded.
        texts_total: number of texts of the study.
        tokens_per_second: new tokens of all workers per second, since the first worker began.
        seconds_left: estimate of the time until all texts are decoded; None if it is not known yet.
        shards_done, shards_total: number of shards that are decoded and scored, and of all shards.
        jobs_running, jobs_waiting: number of jobs.
        shards_failed: number of shards whose last attempt failed.
    """

    texts_done: int
    texts_total: int
    tokens_per_second: float
    seconds_left: float | None
    shards_done: int
    shards_total: int
    jobs_running: int
    jobs_waiting: int
    shards_failed: int

    @property
    def in_words(self) -> str:
        """The rate, the shards and the jobs, in words."""
        phrases = [
            f"{three_digits(self.tokens_per_second)} tokens/s" if self.tokens_per_second else "",
            f"{self.shards_done} of {count(self.shards_total, 'shard')} done",
            f"{count(self.jobs_running, 'job')} running",
            f"{self.jobs_waiting} waiting" if self.jobs_waiting else "",
            f"{count(self.shards_failed, 'shard')} failed" if self.shards_failed else "",
        ]
        return ", ".join(filter(None, phrases))


def status(submission: Submission, plan: Plan, undecoded: Collection[str]) -> Status:
    """How far a submission is now.

    Args:
        submission: the submission.
        plan: its plan.
        undecoded: ids of the texts that were not decoded when the sweep was submitted.
    """
    store = submission.store
    decoded = store.completion_ids()
    left = sum(text not in decoded for text in undecoded)
    costs = [cost for cost in store.costs() if cost["started"] >= plan.started]
    tokens = sum(cost["tokens"] for cost in costs)
    texts = len(undecoded) - left
    seconds = 0.0
    if costs:
        began = min(datetime.fromisoformat(cost["started"]) for cost in costs)
        seconds = (datetime.now(UTC) - began).total_seconds()
    states = submission.states()
    running = sum(state.running for state in states)
    return Status(
        texts_done=plan.text_count - left,
        texts_total=plan.text_count,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        seconds_left=left * seconds / texts if texts else None,
        shards_done=len(submission.done()),
        shards_total=plan.shard_count,
        jobs_running=running,
        jobs_waiting=len(states) - running,
        shards_failed=len(submission.failures()),
    )


def follow(
    submission: Submission, console: Console, on_status: Callable[[Status], None] = lambda _: None
) -> list[str]:
    """Show the progress of a submission until it ends, then its results.

    Args:
        submission: the submission.
        console: where to print.
        on_status: called with each new status.

    Returns:
        One sentence per failed shard.

    Raises:
        StoreError: all jobs ended before the submission did.
    """
    plan, undecoded = submission.plan(), submission.texts().undecoded
    checks_without_jobs = done = 0
    units = ("decoding", len(undecoded), "texts") if undecoded else ("scoring", plan.shard_count, "shards")
    with ProgressBar(console, *units) as bar:
        while True:
            began = time.monotonic()
            end = submission.end()  # read first, so that the last status is complete
            now = status(submission, plan, undecoded)
            on_status(now)
            finished = now.texts_done - plan.text_count + len(undecoded) if undecoded else now.shards_done
            bar.advance(finished - done, note=now.in_words)
            done = finished
            if end is not None:
                break
            checks_without_jobs = 0 if now.jobs_running + now.jobs_waiting else checks_without_jobs + 1
            if checks_without_jobs > _CHECKS_WITHOUT_JOBS:
                raise StoreError(
                    f"all jobs of submission {submission.id} have ended before its texts were finished; "
                    f"their messages are in {submission.folder}. Run the same command again to continue"
                )
            # A check of a folder with a million texts takes some seconds.
            time.sleep(max(_SECONDS_BETWEEN_CHECKS, 4 * (time.monotonic() - began)))
    if submission.results.is_file():
        console.out(submission.results.read_text(encoding="utf-8"), end="", highlight=False)
    return end["failed"]

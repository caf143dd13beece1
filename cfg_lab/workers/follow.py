"""How far a submission is, and following it until it ends."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.console import Console

from cfg_lab.errors import InputError, StoreError
from cfg_lab.study.formats import count, three_digits
from cfg_lab.study.progress import ProgressBar
from cfg_lab.workers.submission import Plan, Submission


@dataclass(frozen=True, kw_only=True)
class Status:
    """How far a submission is.

    Attributes:
        texts_done: number of texts that are decoded.
        texts_total: number of texts of the study.
        tokens_per_second: new tokens of all workers per second, since the first worker began.
        seconds_left: estimate of the time until all texts are decoded; None if it is not known yet.
        shards_done, shards_total: number of shards that are decoded and scored, and of all shards.
        jobs_running, jobs_waiting: number of jobs that decode or score.
        jobs_held: number of jobs that wait until a person releases them.
        jobs: number of all jobs, with those that come after other jobs.
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
    jobs_held: int
    jobs: int
    shards_failed: int

    @property
    def in_words(self) -> str:
        """The rate, the shards and the jobs, in words."""
        phrases = [
            f"{three_digits(self.tokens_per_second)} tokens/s" if self.tokens_per_second else "",
            f"{self.shards_done} of {count(self.shards_total, 'shard')} done",
            f"{count(self.jobs_running, 'job')} running",
            f"{self.jobs_waiting} waiting" if self.jobs_waiting else "",
            f"{self.jobs_held} held by Slurm (squeue says why)" if self.jobs_held else "",
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
    workers = [state for state in states if not state.name.endswith("next")]
    return Status(
        texts_done=plan.text_count - left,
        texts_total=plan.text_count,
        tokens_per_second=tokens / seconds if seconds else 0.0,
        seconds_left=left * seconds / texts if texts else None,
        shards_done=len(submission.done()),
        shards_total=plan.shard_count,
        jobs_running=sum(state.running for state in workers),
        jobs_waiting=sum(not state.running for state in workers),
        jobs_held=sum(state.held for state in states),
        jobs=len(states),
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
    plan, engine, undecoded = submission.plan(), submission.engine, submission.texts().undecoded
    units = ("decoding", len(undecoded), "texts") if undecoded else ("scoring", plan.shard_count, "shards")
    done = 0
    last_seen = time.monotonic()
    with ProgressBar(console, *units) as bar:
        while True:
            began = time.monotonic()
            end = submission.end()  # read first, so that the last status is complete
            try:
                now = status(submission, plan, undecoded)
            except InputError:
                if end is not None:
                    break
                bar.advance(0, note="the list of jobs is not known now; the jobs go on")
            else:
                on_status(now)
                finished = now.texts_done - plan.text_count + len(undecoded) if undecoded else now.shards_done
                bar.advance(finished - done, note=now.in_words)
                done = finished
                if now.jobs:
                    last_seen = began
            if end is not None:
                break
            if began - last_seen > engine.patience:
                raise StoreError(
                    f"all jobs of submission {submission.id} have ended before its texts were finished; "
                    f"their messages are in {submission.folder}. Run the same command again to continue"
                )
            # A check of a folder with a million texts takes some seconds.
            pause = max(engine.seconds_between_checks, 4 * (time.monotonic() - began))
            while time.monotonic() - began < pause and submission.end() is None:
                time.sleep(0.5)
    if submission.results.is_file():
        console.out(submission.results.read_text(encoding="utf-8"), end="", highlight=False)
    return end["failed"]

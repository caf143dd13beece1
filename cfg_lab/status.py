"""How far the sweep of a results folder is: what is done, running, failed and waiting.

For example: `python -m cfg_lab.status results/default --watch`.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from cfg_lab.errors import InputError
from cfg_lab.study.console import errors_in_a_sentence, open_console
from cfg_lab.study.formats import count

if TYPE_CHECKING:
    from cfg_lab.workers.submission import Submission

_USAGE = """Shows how far the sweep of a results folder is: texts, shards, jobs, rate, time left and failures.

  python -m cfg_lab.status results/default
  python -m cfg_lab.status results/default --watch    # until the sweep ends; Ctrl-C ends only this command

Jobs are those of hydra/launcher=slurm and hydra/launcher=local."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the command line, and show how far a sweep is."""
    parser = ArgumentParser(
        "python -m cfg_lab.status", description=_USAGE, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("results", help="results folder of a sweep")
    parser.add_argument("--watch", action="store_true", help="show the progress until the sweep ends")
    parsed = parser.parse_args(arguments)
    with errors_in_a_sentence():
        run(parsed.results, watch=parsed.watch)


def run(results: str, *, watch: bool = False) -> None:
    """Show how far the sweep of a results folder is.

    Args:
        results: the results folder.
        watch: whether to go on until all its submissions have ended.

    Raises:
        InputError: the folder has no results.
        StoreError: a file is damaged.
    """
    from cfg_lab.study.store import Store
    from cfg_lab.workers.follow import follow
    from cfg_lab.workers.submission import active, submissions

    store = Store(Path(results))
    console = open_console()
    completions = store.cell_table(columns=["completion"]).rows["completion"].to_pylist()
    if not completions:
        raise InputError(f"{results!r} holds no results; a sweep writes them to results_root/name")
    decoded_ids = store.completion_ids()
    decoded = sum(completion in decoded_ids for completion in completions)
    _print(console, f"{decoded:,} of {count(len(completions), 'text')} in {results} are decoded")
    running = active(store)
    for submission in running:
        _print_failures(console, follow(submission, console) if watch else _show(submission, console))
    if running:
        return
    _print(console, "no jobs of this folder wait or run")
    for latest in submissions(store)[-1:]:
        end = latest.end()
        if end is None:
            _print(console, "the last jobs were ended from outside; run the same command again to continue")
        _print_failures(console, latest.failures_in_words() if end is None else end["failed"])


def _print_failures(console: Console, sentences: Sequence[str]) -> None:
    for sentence in sentences:
        console.print(f"failed: {sentence}", style="red", markup=False, highlight=False, soft_wrap=True)


def _show(submission: Submission, console: Console) -> list[str]:
    """Print how far a submission is. Returns one sentence per failed shard."""
    from cfg_lab.workers.follow import status

    plan = submission.plan()
    now = status(submission, plan, submission.texts().undecoded)
    _print(console, f"{plan.engine}: {now.in_words}")
    if now.seconds_left:
        _print(
            console, f"about {timedelta(seconds=round(now.seconds_left))} left until all texts are decoded"
        )
    _print(console, f"stop:  {submission.stop_command()}")
    return submission.failures_in_words()


def _print(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main(sys.argv[1:])

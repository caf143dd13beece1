"""Sweeps on many workers, for the tests: start them, look at their jobs, and compare their results."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import cfg_lab
from cfg_lab.study.store import Store
from cfg_lab.workers.submission import Submission, active, submissions
from tests.cli import command, environment, on, shell

GRID = ["guidance.scale=1,2", "negatives=own", "metrics=[perplexity,diversity,length,self_bleu]"]
"""Two cells. self_bleu scores all texts of a cell together."""

LONG = [*GRID, "samples=60", "max_new_tokens=150"]
"""Overrides with which workers have something to do for some seconds: 360 texts."""


def start(*arguments: str) -> subprocess.Popen[str]:
    """Start a sweep in a process of its own."""
    return subprocess.Popen(
        command(*arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


def wait_until(event: Callable[[], object], what: str, seconds: float = 600) -> None:
    """Wait for an event that other processes bring about."""
    deadline = time.monotonic() + seconds
    while not event():
        assert time.monotonic() < deadline, f"{what}: it did not happen within {seconds} s"
        time.sleep(0.05)


def only_submission(root: Path) -> Submission:
    """The submission of a results folder that has one."""
    (submission,) = submissions(Store(root))
    return submission


def is_decoding(root: Path) -> bool:
    """Whether some texts of a results folder are decoded and a submission has not ended."""
    return bool([*root.glob("completions/[!.]*.parquet")]) and bool(active(Store(root)))


def assert_equal_results(root: Path, other: Path) -> None:
    """Two results folders have the same cells, ids, texts, scores and summary, and no text twice."""
    order = ["guidance.scale", "prompt_id", "sample"]
    frames = [cfg_lab.load_results(path).sort_values(order, ignore_index=True) for path in (root, other)]
    same = [
        "cell",
        "completion",
        "text",
        "tokens",
        "finish_reason",
        "distinct_1",
        "length",
        "self_bleu",
        *order,
    ]
    pd.testing.assert_frame_equal(frames[0][same], frames[1][same])
    pd.testing.assert_series_equal(frames[0]["perplexity"], frames[1]["perplexity"], rtol=1e-5)
    summaries = [pd.read_parquet(path / "summary.parquet").sort_values("cell") for path in (root, other)]
    pd.testing.assert_frame_equal(*(each.reset_index(drop=True) for each in summaries), rtol=1e-5)


def reference(folder: Path, model: Path, *arguments: str) -> Path:
    """The results folder of the same sweep in one process."""
    done = shell(*on(folder, model, "reference"), *arguments)
    assert done.returncode == 0, done.stderr
    return folder / "results" / "reference"

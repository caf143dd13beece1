"""Sweeps on many workers, for the tests: start them, look at their jobs, and compare their results."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd

import cfg_lab
from cfg_lab.study.store import Store
from cfg_lab.workers.submission import Submission, active, submissions
from tests.cli import command, environment, on

GRID = ["guidance.scale=1,2", "negatives=own", "metrics=[perplexity,diversity,length,self_bleu]"]
"""Two cells. self_bleu scores all texts of a cell together."""

LONG = [*GRID, "guidance._target_=slow_rule.Slow", "samples=12", "max_new_tokens=60"]
"""Overrides of a sweep of 72 texts that can be slow."""

LONG_TEXTS = 2 * 3 * 12

_SLOW_RULE = """
import os, time
from cfg_lab.guidance import ClassifierFreeGuidance

class Slow(ClassifierFreeGuidance):
    def combine(self, *arguments):
        time.sleep(float(os.environ["SECONDS_PER_STEP"]))
        while os.path.exists(os.environ["HOLD"]):
            time.sleep(0.05)
        return super().combine(*arguments)

class Broken(ClassifierFreeGuidance):
    def combine(self, *arguments):
        raise KeyError("broken on purpose")
"""


class Sweeps:
    """Starts sweeps in processes of their own. Their guidance rule can be slow, without using the processor.

    Args:
        folder: folder for the results.
        model: folder of the model.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.hold = folder / "hold"  # guided decoding waits while this file exists
        (folder / "slow_rule.py").write_text(_SLOW_RULE)

    def root(self, name: str) -> Path:
        """The results folder of a sweep."""
        return self.folder / "results" / name

    def start(
        self, name: str, *overrides: str, seconds: float = 0.1, prompts: str | None = None
    ) -> subprocess.Popen[str]:
        """Start a sweep, each step of which takes some seconds. `prompts` replaces the file of prompts."""
        paths = f"{self.folder}:{os.environ.get('PYTHONPATH', '')}"
        arguments = on(self.folder, self.model, name)
        if prompts is not None:
            (self.folder / "prompts.jsonl").write_text(prompts)
        return subprocess.Popen(
            command(*arguments, *overrides),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(PYTHONPATH=paths, SECONDS_PER_STEP=str(seconds), HOLD=str(self.hold)),
        )

    def run(self, name: str, *overrides: str, status: int = 0, seconds: float = 0.0) -> tuple[str, str]:
        """Run a sweep, check its exit status, and return what it printed to stdout and to stderr."""
        process = self.start(name, *overrides, seconds=seconds)
        output, errors = process.communicate()
        assert process.returncode == status, f"{output}\n{errors}"
        return output, errors

    @contextmanager
    def held(self, name: str, *overrides: str) -> Generator[subprocess.Popen[str]]:
        """Start a sweep, and hold its decoding inside a `with` block, which begins when it is submitted."""
        self.hold.touch()
        try:
            process = self.start(name, *overrides)
            wait_until(lambda: submissions(Store(self.root(name))), "the submission", process)
            yield process
        finally:
            self.hold.unlink()

    def start_and_wait(self, name: str, *overrides: str, seconds: float = 0.1) -> subprocess.Popen[str]:
        """Start a sweep, and return when some of its texts are decoded and others are not."""
        process = self.start(name, *overrides, seconds=seconds)
        files = self.root(name) / "completions"
        wait_until(lambda: any(files.glob("[!.]*.parquet")), "texts are decoded", process)
        assert active(Store(self.root(name)))
        return process


def wait_until(
    event: Callable[[], object], what: str, process: subprocess.Popen[str] | None = None, seconds: float = 600
) -> None:
    """Wait for an event that other processes bring about. Fail if `process` ends before."""
    deadline = time.monotonic() + seconds
    while not event():
        assert process is None or process.poll() is None, f"{what}: the command ended before"
        assert time.monotonic() < deadline, f"{what}: it did not happen within {seconds} s"
        time.sleep(0.05)


def only_submission(root: Path) -> Submission:
    """The submission of a results folder that has one."""
    (submission,) = submissions(Store(root))
    return submission


def assert_equal_results(root: Path, other: Path) -> None:
    """Two results folders have the same cells, ids, texts, scores and summary."""
    order = ["guidance.scale", "prompt_id", "sample"]
    texts = ["cell", "completion", "text", "tokens", "finish_reason", "distinct_1", "length", "self_bleu"]
    frames = [cfg_lab.load_results(path).sort_values(order, ignore_index=True) for path in (root, other)]
    pd.testing.assert_frame_equal(*(frame[[*texts, *order]] for frame in frames))
    pd.testing.assert_series_equal(*(frame["perplexity"] for frame in frames), rtol=1e-5)
    summaries = [pd.read_parquet(path / "summary.parquet").sort_values("cell") for path in (root, other)]
    pd.testing.assert_frame_equal(*(each.reset_index(drop=True) for each in summaries), rtol=1e-5)

"""A sweep on a real Slurm of four nodes gives the results of one process, whatever happens to its jobs."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest

import cfg_lab
from cfg_lab.study.store import Store
from cfg_lab.workers.engine import JobState
from cfg_lab.workers.submission import submissions
from tests.cli import command, environment, on, shell
from tests.slurm_cluster import SlurmCluster
from tests.workers import (
    GRID,
    LONG,
    assert_equal_results,
    is_decoding,
    only_submission,
    reference,
    start,
    wait_until,
)

SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.workers=4",
    "hydra.launcher.cpus=1",
    "hydra.launcher.shards=8",
]

SLOW_RULE = """
import os, time
from cfg_lab.guidance import ClassifierFreeGuidance

class Slow(ClassifierFreeGuidance):
    def combine(self, *arguments):
        time.sleep(float(os.environ.get("SECONDS_PER_STEP", 0)))
        return super().combine(*arguments)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on a path with spaces, with a guidance rule that can be slow."""
    folder = tmp_path_factory.mktemp("on a cluster")
    (folder / "slow_rule.py").write_text(SLOW_RULE)
    return folder


@pytest.fixture(scope="module")
def whole(folder: Path, tiny_folder: Path) -> Path:
    """The results of the long sweep in one process."""
    return reference(folder, tiny_folder, *LONG)


def processes_of(state: JobState) -> list[psutil.Process]:
    """The Python processes of a task of an array."""
    array, _, task = state.id.partition("_")
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            variables = process.environ()
        except psutil.Error:
            continue
        ids = variables.get("SLURM_ARRAY_JOB_ID"), variables.get("SLURM_ARRAY_TASK_ID")
        if ids == (array, task) and "submitit.core._submit" in process.cmdline():
            found.append(process)
    return found


def kill_worker(state: JobState) -> None:
    """Kill the process of a task."""
    processes = processes_of(state)
    assert processes
    for process in processes:
        process.kill()


def test_what_happens_to_jobs_changes_nothing(
    slurm: SlurmCluster, folder: Path, tiny_folder: Path, whole: Path
) -> None:
    """The waiting command is killed. A worker is killed, a task cancelled, one requeued, and a node fails."""
    arguments = [*on(folder, tiny_folder, "events"), *LONG, *SLURM, "hydra.launcher.retries=2"]
    root = folder / "results" / "events"
    first = start(*arguments)
    wait_until(lambda: is_decoding(root), "texts are decoded")
    first.kill()
    first.wait()
    submission = only_submission(root)

    def running() -> list[JobState]:
        return [state for state in submission.states() if state.name.endswith("texts") and state.running]

    wait_until(lambda: len(running()) == 4, "four tasks run")
    cancelled, killed, requeued, lost = running()
    slurm.run("scancel", cancelled.id)
    kill_worker(killed)
    slurm.run("scontrol", "requeue", requeued.id)
    (job,) = [job for job in slurm.squeue() if job.id == lost.id]
    slurm.kill_node(job.node)

    again = [start(*arguments), start(*arguments)]  # both attach to the jobs
    for process in again:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "self_bleu" in output
    assert only_submission(root).end() == {"failed": []}
    assert_equal_results(root, whole)
    assert len(Store(root).completion_ids()) == 2 * 3 * 60


def test_a_time_limit_is_no_end(slurm: SlurmCluster, folder: Path, tiny_folder: Path) -> None:
    """A task that reaches its time limit writes what is finished, and goes on in the queue.

    Slurm counts time limits in minutes, so the rule of this sweep is slow.
    """
    rule = [
        "guidance._target_=slow_rule.Slow",
        "guidance.scale=2",
        "negatives=own",
        "samples=12",
        "max_rows=8",
    ]
    limit = ["hydra.launcher.time=1", "hydra.launcher.signal_delay=50", "hydra.launcher.shards=1"]
    variables = {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        command(*on(folder, tiny_folder, "limit"), *rule, *SLURM, *limit),
        capture_output=True,
        text=True,
        env=environment(SECONDS_PER_STEP="0.4", **variables),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    root = folder / "results" / "limit"
    submission = only_submission(root)
    (log,) = [*submission.folder.glob("*-0-texts/*_log.out")]
    assert "Caught signal SIGUSR2" in log.read_text()
    assert len([*root.glob("costs/*.json")]) > 1  # the shard was decoded by two processes
    assert len(Store(root).completion_ids()) == 3 * 12
    texts = [
        text for path in root.glob("completions/*.parquet") for text in pq.read_table(path)["id"].to_pylist()
    ]
    assert len(texts) == 3 * 12  # what was finished before was not decoded again
    plain = subprocess.run(
        command(*on(folder, tiny_folder, "no_limit"), *rule),
        env=environment(**variables),
        check=False,
    )
    assert plain.returncode == 0
    columns = ["completion", "text", "perplexity"]
    frames = [cfg_lab.load_results(folder / "results" / name)[columns] for name in ("limit", "no_limit")]
    pd.testing.assert_frame_equal(*(frame.sort_values("completion", ignore_index=True) for frame in frames))


def test_a_full_disk_of_one_worker_is_named(
    slurm: SlurmCluster, folder: Path, tiny_folder: Path, whole: Path
) -> None:
    """The operating system lets one worker write no more. The other shards are decoded and scored."""
    arguments = [*on(folder, tiny_folder, "disk"), *LONG, *SLURM, "hydra.launcher.retries=0"]
    root = folder / "results" / "disk"
    sweep = start(*arguments)
    wait_until(lambda: is_decoding(root), "texts are decoded")
    submission = only_submission(root)
    texts = [state for state in submission.states() if state.name.endswith("texts") and state.running]
    for process in processes_of(texts[0]):
        process.rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
    _, errors = sweep.communicate()
    assert sweep.returncode == 1
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert sentence.startswith("error: shard ")
    assert str(submission.folder) in sentence
    decoded = Store(root).completion_ids()
    assert len(decoded) < 2 * 3 * 60
    results = cfg_lab.load_results(root)
    assert results[["perplexity", "self_bleu"]].notna().all(axis=None)
    again = shell(*arguments)
    assert again.returncode == 0, again.stderr
    assert len(submissions(Store(root))[-1].plan().undecoded) == 2 * 3 * 60 - len(decoded)
    assert_equal_results(root, whole)


def test_what_slurm_refuses_is_said_in_a_sentence(
    slurm: SlurmCluster, folder: Path, tiny_folder: Path
) -> None:
    refused = shell(*on(folder, tiny_folder, "refused"), *GRID, *SLURM, "hydra.launcher.partition=nowhere")
    assert refused.returncode == 2
    assert "error: hydra/launcher=slurm: Slurm refuses the jobs" in refused.stderr
    assert "invalid partition specified: nowhere" in refused.stderr
    assert not submissions(Store(folder / "results" / "refused"))

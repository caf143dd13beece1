"""A sweep on a real Slurm of four nodes gives the results of one process, whatever happens to its jobs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

import cfg_lab
from cfg_lab.study.store import Store
from cfg_lab.workers.engine import JobState
from cfg_lab.workers.submission import Submission, submissions
from tests.slurm_cluster import SlurmCluster
from tests.workers import GRID, LONG, LONG_TEXTS, Sweeps, assert_equal_results, only_submission, wait_until

SLURM = [
    "hydra/launcher=slurm",
    "hydra.launcher.workers=4",
    "hydra.launcher.cpus=1",
    "hydra.launcher.shards=6",
]


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Sweeps:
    """Sweeps on a path with spaces."""
    return Sweeps(tmp_path_factory.mktemp("on a cluster"), tiny_folder)


@pytest.fixture(scope="module")
def whole(sweeps: Sweeps) -> Path:
    """The results of the long sweep in one process."""
    sweeps.run("whole", *LONG)
    return sweeps.root("whole")


def decoding(submission: Submission) -> list[JobState]:
    """The tasks that decode texts."""
    return [state for state in submission.states() if state.name.endswith("texts") and state.running]


def workers_of(task: JobState) -> list[psutil.Process]:
    """The Python processes of a task of an array. A task has none before srun has started it."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        try:
            variables, line = process.environ(), process.cmdline()
        except psutil.Error:
            continue
        task_id = f"{variables.get('SLURM_ARRAY_JOB_ID')}_{variables.get('SLURM_ARRAY_TASK_ID')}"
        if task_id == task.id and "submitit.core._submit" in line and "python" in Path(line[0]).name:
            found.append(process)
    return found


def kill(task: JobState) -> None:
    """Kill the worker of a task."""
    wait_until(lambda: workers_of(task), "the worker runs")
    for process in workers_of(task):
        with suppress(psutil.NoSuchProcess):  # the end of one ends the others
            process.kill()


def test_what_happens_to_jobs_changes_nothing(slurm: SlurmCluster, sweeps: Sweeps, whole: Path) -> None:
    """The waiting command is killed. A worker is killed, a task cancelled, one requeued, and a node fails."""
    overrides = [*LONG, *SLURM, "hydra.launcher.retries=2"]
    root = sweeps.root("events")
    first = sweeps.start("events", *overrides)
    wait_until(lambda: root.exists() and submissions(Store(root)), "the submission")
    submission = only_submission(root)
    wait_until(lambda: len(decoding(submission)) == 4, "four tasks run")
    first.kill()
    first.wait()
    cancelled, killed, requeued, lost = decoding(submission)
    kill(killed)
    slurm.run("scancel", cancelled.id)
    slurm.run("scontrol", "requeue", requeued.id)
    (job,) = [job for job in slurm.squeue() if job.id == lost.id]
    slurm.kill_node(job.node)
    again = [sweeps.start("events", *overrides), sweeps.start("events", *overrides)]  # both attach
    for process in again:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "self_bleu" in output
    assert only_submission(root).end() == {"failed": []}
    assert_equal_results(root, whole)
    assert len(Store(root).completion_ids()) == LONG_TEXTS


def test_a_time_limit_is_no_end(slurm: SlurmCluster, sweeps: Sweeps) -> None:
    """A task that reaches its time limit writes what is finished, and goes on in the queue.

    The limit is set while texts are decoded, because a busy machine may need minutes to start a task. Slurm
    counts limits in minutes, and looks at them every 30 seconds.
    """
    rule = ["guidance.scale=2", *LONG[1:], "max_new_tokens=8", "max_rows=8"]  # 9 times 8 steps
    limit = ["hydra.launcher.signal_delay=90", "hydra.launcher.shards=1"]
    root = sweeps.root("limit")
    sweep = sweeps.start_and_wait("limit", *rule, *SLURM, *limit, seconds=1.5)
    submission = only_submission(root)
    (task,) = decoding(submission)
    slurm.end_soon(task.id)
    (log,) = submission.folder.glob("*-0-texts/*_log.out")
    wait_until(lambda: "Caught signal SIGUSR2" in log.read_text(), "the signal of the time limit", sweep)
    slurm.run("scontrol", "update", f"JobId={task.id}", "TimeLimit=UNLIMITED")
    output, errors = sweep.communicate()
    assert sweep.returncode == 0, f"{output}\n{errors}"
    assert len([*root.glob("costs/*.json")]) > 1  # two processes decoded the shard
    rows = [pq.read_metadata(path).num_rows for path in root.glob("completions/*.parquet")]
    assert sum(rows) == 3 * 12  # what was finished before was not decoded again
    sweeps.run("no_limit", *rule)
    assert_equal_results(root, sweeps.root("no_limit"))


def test_a_full_disk_of_one_worker_is_named(slurm: SlurmCluster, sweeps: Sweeps, whole: Path) -> None:
    """The operating system lets one worker write no more. The other shards are decoded and scored."""
    overrides = [*LONG, *SLURM, "hydra.launcher.retries=0"]
    root = sweeps.root("disk")
    sweep = sweeps.start("disk", *overrides)
    wait_until(lambda: root.exists() and submissions(Store(root)), "the submission", sweep)
    submission = only_submission(root)
    wait_until(lambda: decoding(submission), "a task runs", sweep)
    task = decoding(submission)[0]
    wait_until(lambda: workers_of(task), "its worker runs", sweep)
    for process in workers_of(task):
        process.rlimit(psutil.RLIMIT_FSIZE, (4096, 4096))
    _, errors = sweep.communicate()
    assert sweep.returncode == 1
    (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    (failed,) = submission.failures()
    assert sentence.startswith(f"error: {failed}: ")
    assert str(submission.folder) in sentence
    results = cfg_lab.load_results(root)
    assert results[["perplexity", "self_bleu"]].notna().all(axis=None)
    lost = len(submission.texts().of_shards[int(failed.removeprefix("shard "))])
    assert len(Store(root).completion_ids()) == LONG_TEXTS - lost
    sweeps.run("disk", *overrides)
    assert submissions(Store(root))[-1].plan().undecoded_count == lost
    assert_equal_results(root, whole)


def test_what_slurm_refuses_is_said_in_a_sentence(slurm: SlurmCluster, sweeps: Sweeps) -> None:
    _, errors = sweeps.run("refused", *GRID, *SLURM, "hydra.launcher.partition=nowhere", status=2)
    assert "error: hydra/launcher=slurm: Slurm refuses the jobs" in errors
    assert "invalid partition specified: nowhere" in errors
    assert not submissions(Store(sweeps.root("refused")))


def test_nothing_is_left_of_a_cluster_and_another_goes_on(slurm: SlurmCluster, tmp_path: Path) -> None:
    """A cluster of the tests ends with everything that was started in it, also with detached processes."""
    number = tmp_path / "number"
    with SlurmCluster(nodes=1) as other:
        detached = f"setsid sleep 1000 & echo $! > {number}.new; mv {number}.new {number}; wait"
        other.run("sbatch", f"--wrap={detached}", "--output=/dev/null")
        wait_until(number.exists, "the job runs")
        assert not slurm.squeue("--name=wrap")
    assert not other.folder.exists()
    process = int(number.read_text())
    assert not psutil.pid_exists(process) or psutil.Process(process).status() == psutil.STATUS_ZOMBIE
    assert set(slurm.states().values()) == {"idle"}

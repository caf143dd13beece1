"""The Slurm of the tests is a real one: submitit's jobs in it wait, end, fail and start again."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.slurm_cluster import Job, SlurmCluster, wait_until
from tests.slurm_tasks import WAYS, UntilSignalled, at_once, executor, submit_another, until_told

ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL"}


def have_ended(*ids: str) -> Callable[[dict[str, Job]], bool]:
    """The event that some jobs have ended."""
    return lambda jobs: all(jobs[each].state in ENDED for each in ids)


def is_there(path: Path) -> None:
    """Wait for a file."""
    wait_until(path.exists, f"the writing of {path}")


def runs(pid: int) -> bool:
    """Whether a process runs. One that has ended may stay in the list of processes for a while."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder on a path with spaces and other letters."""
    path = tmp_path / "results of 'x', 100 % – no 2"
    path.mkdir()
    return path


@pytest.mark.parametrize("way", WAYS)
def test_an_array_runs_side_by_side_and_a_job_after_it(slurm: SlurmCluster, place: Path, way: str) -> None:
    array = executor(place / "jobs", way, array_parallelism=2, job_name="an array").map_array(
        until_told, [place] * 4
    )
    main = array[0].job_id.split("_")[0]
    after = executor(place / "after", way, dependency=f"afterany:{main}").submit(at_once, place)

    def two_run(jobs: dict[str, Job]) -> bool:
        running = [job for job in jobs.values() if job.state == "RUNNING"]
        waiting = [job for job in jobs.values() if job.reason == "JobArrayTaskLimit"]
        assert len(running) <= 2
        return len(running) == len(waiting) == 2 and jobs[after.job_id].reason == "Dependency"

    slurm.wait("two tasks run, two wait", two_run)
    assert {job.name for job in slurm.squeue("--name=an array")} == {"an array"}
    assert [job.job_id for job in array] == [f"{main}_{task}" for task in range(4)]
    (place / "go").touch()
    slurm.wait("the end", have_ended(after.job_id))
    # States come first: without accounting, submitit waits for ever for the result of a killed task.
    assert {job.state for job in slurm.squeue(f"--jobs={main},{after.job_id}")} == {"COMPLETED"}
    assert [job.result() for job in array] == ["0.0", "1.0", "2.0", "3.0"]
    assert {"0.0", "1.0", "2.0", "3.0"} <= set(after.result().split())


@pytest.mark.parametrize("way", WAYS)
def test_tasks_end_in_every_way_before_the_job_after_them(slurm: SlurmCluster, place: Path, way: str) -> None:
    array = executor(place / "jobs", way).map_array(until_told, [place] * 4)
    ids = [job.job_id for job in array]
    main = ids[0].split("_")[0]
    after = executor(place / "after", way, dependency=f"afterany:{main}").submit(at_once, place)
    for task in range(4):
        is_there(place / f"{task}.0")
    slurm.run("scancel", ids[0])
    os.kill(int((place / "1.0").read_text()), signal.SIGKILL)
    slurm.run("scontrol", "requeue", ids[2])
    is_there(place / "2.1")
    slurm.wait("the end of two tasks", have_ended(*ids[:2]))
    jobs = {job.id: job for job in slurm.squeue()}
    assert [jobs[each].state for each in ids] == ["CANCELLED", "FAILED", "RUNNING", "RUNNING"]
    assert [jobs[each].restarts for each in ids] == [0, 0, 1, 0]
    assert jobs[after.job_id].state == "PENDING"
    (place / "go").touch()
    slurm.wait("the end", have_ended(after.job_id))
    assert [job.paths.result_pickle.exists() for job in array] == [False, False, True, True]
    assert [array[2].result(), array[3].result()] == ["2.1", "3.0"]


@pytest.mark.parametrize("way", WAYS)
def test_a_task_submits_a_job(slurm: SlurmCluster, place: Path, way: str) -> None:
    array = executor(place / "jobs", way).map_array(submit_another, [place] * 2, [way] * 2)
    slurm.wait("the end of the tasks", have_ended(*(job.job_id for job in array)))
    assert all(job.paths.result_pickle.exists() for job in array)
    submitted = [job.result() for job in array]
    slurm.wait("the end of their jobs", have_ended(*submitted))
    jobs = slurm.squeue(f"--jobs={','.join(submitted)}")
    assert [job.state for job in jobs] == ["COMPLETED"] * 2


def test_the_time_limit_requeues_a_task_with_its_checkpoint(slurm: SlurmCluster, place: Path) -> None:
    """Slurm looks at time limits every 30 seconds, so both ways are tried at once."""
    jobs = [executor(place / way, way, time=1).submit(UntilSignalled(), place / way) for way in WAYS]
    ids = [job.job_id for job in jobs]
    slurm.wait("the end", have_ended(*ids))
    seen = slurm.squeue(f"--jobs={','.join(ids)}")
    assert [(job.state, job.restarts) for job in seen] == [("COMPLETED", 1)] * 2
    assert [job.result() for job in jobs] == [1, 1]


def test_a_task_of_a_failed_node_runs_again_on_another(slurm: SlurmCluster, place: Path) -> None:
    array = executor(place / "jobs", "step").map_array(until_told, [place] * 2)
    main = array[0].job_id.split("_")[0]
    after = executor(place / "after", "step", dependency=f"afterany:{main}").submit(at_once, place)
    for task in range(2):
        is_there(place / f"{task}.0")
    failed = {job.id: job for job in slurm.squeue()}[f"{main}_0"].node
    worker = int((place / "0.0").read_text())
    slurm.kill_node(failed)
    assert not runs(worker)
    is_there(place / "0.1")
    assert slurm.states()[failed] == "down*"
    jobs = {job.id: job for job in slurm.squeue()}
    assert [jobs[f"{main}_{task}"].restarts for task in range(2)] == [1, 0]
    assert jobs[f"{main}_0"].node != failed
    assert jobs[after.job_id].state == "PENDING"
    slurm.start_node(failed)
    (place / "go").touch()
    slurm.wait("the end", have_ended(after.job_id))
    assert {job.state for job in slurm.squeue(f"--jobs={main}")} == {"COMPLETED"}
    assert [job.result() for job in array] == ["0.1", "1.0"]


def test_nothing_is_left_of_a_cluster_and_others_go_on(slurm: SlurmCluster, place: Path) -> None:
    with SlurmCluster(nodes=1) as other:
        detached = f"setsid sleep 1000 & echo $! > {shlex.quote(str(place / 'pid'))}.new; "
        detached += f"mv {shlex.quote(str(place / 'pid'))}.new {shlex.quote(str(place / 'pid'))}; wait"
        assert other.run("sbatch", "--parsable", f"--wrap={detached}", "--output=/dev/null").strip() == "1"
        is_there(place / "pid")
        assert not slurm.squeue("--name=wrap")
    assert not other.folder.exists()
    assert not runs(int((place / "pid").read_text()))
    assert set(slurm.states().values()) == {"idle"}

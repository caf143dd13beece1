"""The engine `slurm`: every shard is a task of a job array on a Slurm cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from cfg_lab.errors import InputError
from cfg_lab.workers.engine import Automatic, Job, JobState, check_count_or_auto, check_launcher_count

_MOST_TIMEOUTS = 100
"""How often a job can reach its time limit and go on."""

_WAITING = {"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {
    "RUNNING",
    "COMPLETING",
    "CONFIGURING",
    "SUSPENDED",
    "STOPPED",
    "SIGNALING",
    "STAGE_OUT",
    "RESIZING",
}
"""States of Slurm's jobs. A job in another state has ended."""


@dataclass(frozen=True, kw_only=True)
class SlurmEngine:
    """Runs jobs on a Slurm cluster. Each shard is a task of a job array.

    A job that reaches its time limit, or is preempted, writes what is finished. It is then put into the queue
    again, and goes on with what is missing.

    Args:
        workers: largest number of jobs that run at once, at least 1.
        shards: number of shards, at least 1; "auto" is four times `workers`. A shard is the work of one job.
        partition, account, qos, constraint: as for sbatch; None is the default of the cluster.
        gpus: GPUs of each job, at least 0.
        cpus: CPU cores of each job, at least 1.
        mem: memory of each job, such as "16GB"; None is the default of the cluster.
        time: time limit of a job, in minutes.
        signal_delay: seconds before the time limit at which a job begins to write what is finished.
        setup: shell commands at the start of each job, such as "module load cuda".
        python: the command that runs Python in a job, such as "apptainer exec --nv lab.sif python"; None is
            the Python that runs this process.
        srun: further arguments of srun, such as "--container-image=lab.sqsh".
        extra: further parameters of sbatch, such as {"nodelist": "node7"}.

    Raises:
        InputError: a value is out of range.
    """

    workers: int = 8
    shards: int | Automatic = "auto"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    gpus: int = 0
    cpus: int = 4
    mem: str | None = None
    time: int = 240
    signal_delay: int = 120
    setup: Sequence[str] = ()
    python: str | None = None
    srun: Sequence[str] = ()
    extra: Mapping[str, Any] = field(default_factory=dict[str, Any])

    name = "slurm"
    seconds_between_checks = 10.0  # each check asks Slurm's controller, which serves all users
    patience = 120.0  # other machines see a new file of a network file system up to a minute late

    def __post_init__(self) -> None:
        check_launcher_count("workers", self.workers, 1)
        check_count_or_auto("shards", self.shards)
        check_launcher_count("gpus", self.gpus, 0)
        check_launcher_count("cpus", self.cpus, 1)
        check_launcher_count("time", self.time, 1)
        check_launcher_count("signal_delay", self.signal_delay, 1)
        if self.signal_delay >= 60 * self.time:
            raise InputError(
                f"hydra.launcher.signal_delay must be shorter than hydra.launcher.time, which is "
                f"{60 * self.time} seconds; got {self.signal_delay}"
            )

    @property
    def worker_count(self) -> int:
        return self.workers

    @property
    def uses_gpus(self) -> bool:
        return self.gpus > 0

    @property
    def shard_count(self) -> int:
        return 4 * self.workers if self.shards == "auto" else self.shards

    def shards_of_jobs(self, shards: Sequence[int]) -> list[list[int]]:
        return [[shard] for shard in shards]

    def submit(self, name: str, folder: Path, jobs: Sequence[Job], after: Sequence[str] = ()) -> None:
        if shutil.which("srun") is None:
            raise InputError(
                "hydra/launcher=slurm needs a machine of a Slurm cluster, with the commands srun and sbatch; "
                "hydra/launcher=local uses the processors of this machine"
            )
        earlier = [state for array in after for state in self.states(folder, array) if state.name == array]
        parameters = {
            "job_name": name,
            "array_parallelism": self.workers,
            "partition": self.partition,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
            "gpus_per_node": self.gpus or None,
            "cpus_per_task": self.cpus,
            "mem": self.mem,
            "time": self.time,
            "signal_delay_s": self.signal_delay,
            "setup": list(self.setup) or None,
            "srun_args": list(self.srun) or None,
            "additional_parameters": {"requeue": True, **self.extra},
            "dependency": f"afterany:{':'.join(_numbers(earlier))}" if earlier else None,
            "stderr_to_stdout": True,
        }
        try:
            with _outside_of_a_job():
                executor = submitit.SlurmExecutor(folder / name, _MOST_TIMEOUTS, python=self.python)
                given = {key: value for key, value in parameters.items() if value is not None}
                executor.update_parameters(**given)
                with executor.batch():
                    submitted = [executor.submit(job) for job in jobs]
            _wait_until_listed(submitted[0].job_id.partition("_")[0])
        except (FailedJobError, FailedSubmissionError) as error:
            reason = re.sub(r"\s+", " ", str(error)).strip()
            if "array specification" in reason:
                reason += f"; there are {len(jobs)} jobs, so set hydra.launcher.shards to a smaller number"
            raise InputError(f"hydra/launcher=slurm: Slurm refuses the jobs: {reason}") from error

    def states(self, folder: Path, prefix: str) -> list[JobState]:
        # The jobs may be those of a colleague who owns the folder.
        owner = next(path for path in (folder, *folder.parents) if path.exists()).stat().st_uid
        lines = _squeue(f"--user={owner}", "--format=%i|%T|%r|%j").splitlines()
        jobs = [line.strip().split("|", 3) for line in lines]  # a name can contain the character, too
        return [
            JobState(
                number,
                name,
                int(number.partition("_")[2] or 0),
                running=state in _RUNNING,
                held="held" in reason.lower() or "HOLD" in state,
            )
            for number, state, reason, name in jobs
            if name.startswith(prefix) and state in _WAITING | _RUNNING
        ]

    def log(self, folder: Path, name: str, index: int) -> Path:
        # submitit makes an array of several jobs only.
        logs = [*(folder / name).glob(f"*_{index}_0_log.out")]
        if index == 0:
            logs += (folder / name).glob("*_0_log.out")
        return max(logs, key=lambda path: path.stat().st_mtime, default=folder / name)

    def stop_command(self, folder: Path, prefix: str) -> str:
        numbers = _numbers(self.states(folder, prefix))
        return f"scancel {' '.join(numbers)}" if numbers else "nothing to stop"


def _squeue(*arguments: str) -> str:
    """The output of squeue, with one line for each task of an array.

    Raises:
        InputError: squeue fails again and again. A busy controller of Slurm does not answer for some seconds.
    """
    command = ["squeue", "--noheader", "--array", *arguments]
    for seconds in (2, 10, 30, None):
        try:
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
        except (OSError, subprocess.SubprocessError) as error:
            if seconds is None or isinstance(error, FileNotFoundError):
                reason = str(getattr(error, "stderr", None) or error).strip()
                raise InputError(f"squeue, which lists the jobs of Slurm, failed: {reason}") from error
            time.sleep(seconds)
    raise AssertionError("unreachable")


def _wait_until_listed(number: str) -> None:
    """Wait until squeue knows a job that was just submitted. At some sites squeue is a little late."""
    for _ in range(30):
        if _squeue("--states=all", "--format=%A %F").split().count(number):
            return
        time.sleep(1)


@contextmanager
def _outside_of_a_job() -> Generator[None]:
    """Remove Slurm's variables for a while: the variables of a job would change the jobs that it submits."""
    # Not values of a job: they name the cluster, or are the user's own defaults of sbatch.
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in ("SLURM_CONF", "SLURM_CLUSTERS") or name.startswith("SBATCH_")
    }
    with clean_env():
        os.environ.update(kept)
        yield


def _numbers(states: Sequence[JobState]) -> list[str]:
    """The numbers of jobs, an array counting as one job."""
    return sorted({state.id.partition("_")[0] for state in states}, key=int)

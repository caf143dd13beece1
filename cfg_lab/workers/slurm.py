"""The engine `slurm`: every shard is a task of a job array on a Slurm cluster."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.helpers import clean_env

from cfg_lab.errors import InputError
from cfg_lab.workers.engine import Automatic, Job, JobState, check_count, check_count_or_auto

_MOST_TIMEOUTS = 100
"""How often a job can reach its time limit and go on. Each time it has decoded some more texts."""

_ENDED = {"CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "REVOKED", "TIMEOUT"}
"""States in which a job of Slurm neither waits nor runs."""


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

    def __post_init__(self) -> None:
        check_count("workers", self.workers, 1)
        check_count_or_auto("shards", self.shards)
        check_count("gpus", self.gpus, 0)
        check_count("cpus", self.cpus, 1)
        check_count("time", self.time, 1)
        check_count("signal_delay", self.signal_delay, 1)
        if self.signal_delay >= 60 * self.time:
            raise InputError(
                f"hydra.launcher.signal_delay must be shorter than hydra.launcher.time, which is "
                f"{60 * self.time} seconds; got {self.signal_delay}"
            )

    @property
    def worker_count(self) -> int:
        return self.workers

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
            "additional_parameters": dict(self.extra) or None,
            "dependency": f"afterany:{':'.join(_numbers(earlier))}" if earlier else None,
            "stderr_to_stdout": True,
        }
        try:
            with _outside_of_a_job():
                executor = submitit.SlurmExecutor(folder / name, _MOST_TIMEOUTS, python=self.python)
                given = {key: value for key, value in parameters.items() if value is not None}
                executor.update_parameters(**given)
                with executor.batch():
                    for job in jobs:
                        executor.submit(job)
        except (FailedJobError, FailedSubmissionError) as error:
            reason = re.sub(r"\s+", " ", str(error)).strip()
            raise InputError(f"hydra/launcher=slurm: Slurm refuses the jobs: {reason}") from error

    def states(self, folder: Path, prefix: str) -> list[JobState]:
        # Names are unique, so the folder is not needed.
        command = ["squeue", "--me", "--noheader", "--array", "--format=%i|%j|%T"]
        try:
            listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            reason = str(getattr(error, "stderr", None) or error).strip()
            raise InputError(f"the jobs of this folder run on Slurm, and squeue failed: {reason}") from error
        jobs = [line.strip().split("|") for line in listed.splitlines()]
        return [
            JobState(number, name, int(number.partition("_")[2] or 0), running=state != "PENDING")
            for number, name, state in jobs
            if name.startswith(prefix) and state not in _ENDED
        ]

    def log(self, folder: Path, name: str, index: int) -> Path:
        # submitit makes an array of several jobs only.
        logs = [*(folder / name).glob(f"*_{index}_0_log.out")] or [*(folder / name).glob("*_0_log.out")]
        return max(logs, key=lambda path: path.stat().st_mtime, default=folder / name)

    def stop_command(self, folder: Path, prefix: str) -> str:
        return f"scancel {' '.join(_numbers(self.states(folder, prefix)))}"


@contextmanager
def _outside_of_a_job() -> Generator[None]:
    """Remove Slurm's variables for a while: the variables of a job would change the jobs that it submits."""
    cluster = os.environ.get("SLURM_CONF")
    with clean_env():
        if cluster is not None:
            os.environ["SLURM_CONF"] = cluster  # the cluster itself, not a value of the job
        yield


def _numbers(states: Sequence[JobState]) -> list[str]:
    """The numbers of jobs, an array counting as one job."""
    return sorted({state.id.partition("_")[0] for state in states}, key=int)

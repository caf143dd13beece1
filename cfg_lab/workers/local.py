"""The engine `local`: every worker is a process of this machine."""

from __future__ import annotations

import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import submitit

from cfg_lab.errors import InputError
from cfg_lab.study.formats import count
from cfg_lab.workers.engine import Automatic, Job, JobState, check_count_or_auto, check_launcher_count

_MINUTES = 60 * 24 * 365
"""Time limit of a job. submitit needs one."""

_ALL_GPUS = "CFG_LAB_GPUS"
"""Environment variable of the jobs: all GPUs that the workers of a sweep use together."""


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Runs jobs as processes of this machine. Each worker works through its shards.

    Args:
        workers: number of processes, at least 1; "auto" is the number of visible GPUs divided by `gpus`, or
            one per CPU core if there is no GPU.
        gpus: GPUs of each worker, at least 1. More than one is for model.device=balanced. Without a GPU
            it has no effect.
        threads: CPU threads of each worker, at least 1; "auto" divides the CPU cores between the workers.
        shards: number of shards, at least 1; "auto" is one for each worker. Each shard is decoded as a batch
            of its own, and the end of a batch is slower because it has fewer texts.

    Raises:
        InputError: a value is out of range.
    """

    workers: int | Automatic = "auto"
    gpus: int = 1
    threads: int | Automatic = "auto"
    shards: int | Automatic = "auto"

    name = "local"
    seconds_between_checks = 1.0
    patience = 10.0

    def __post_init__(self) -> None:
        for key in ("workers", "threads", "shards"):
            check_count_or_auto(key, getattr(self, key))
        check_launcher_count("gpus", self.gpus, 1)
        visible = len(_visible_gpus())
        if 0 < visible < self.gpus:
            raise InputError(
                f"hydra.launcher.gpus is {self.gpus}, but this machine has {count(visible, 'visible GPU')}"
            )

    @property
    def worker_count(self) -> int:
        if self.workers != "auto":
            return self.workers
        return len(_visible_gpus()) // self.gpus or len(os.sched_getaffinity(0))

    @property
    def uses_gpus(self) -> bool:
        return bool(_visible_gpus())

    @property
    def shard_count(self) -> int:
        return self.worker_count if self.shards == "auto" else self.shards

    def shards_of_jobs(self, shards: Sequence[int]) -> list[list[int]]:
        jobs = [list(shards[worker :: self.worker_count]) for worker in range(self.worker_count)]
        return [job for job in jobs if job]

    def submit(self, name: str, folder: Path, jobs: Sequence[Job], after: Sequence[str] = ()) -> None:
        visible = _visible_gpus()
        devices = [visible[first : first + self.gpus] for first in range(0, len(visible), self.gpus)]
        whole = [",".join(device) for device in devices if len(device) == self.gpus] or [""]
        cores = len(os.sched_getaffinity(0))
        threads = max(1, cores // self.worker_count) if self.threads == "auto" else self.threads
        for index, job in enumerate(jobs):
            # The variables must be set before Python starts: libraries read them when they are imported.
            variables = {
                "CUDA_VISIBLE_DEVICES": whole[index % len(whole)],
                _ALL_GPUS: ",".join(visible),
                "OMP_NUM_THREADS": str(threads),
            }
            python = shlex.join(
                ["env", *(f"{key}={value}" for key, value in variables.items()), sys.executable]
            )
            executor = submitit.LocalExecutor(folder / name / str(index), python=python)
            executor.update_parameters(timeout_min=_MINUTES, stderr_to_stdout=True)
            with _without_interrupts():
                executor.submit(_LocalJob(job, folder, tuple(after)))

    def states(self, folder: Path, prefix: str) -> list[JobState]:
        return _processes(folder, prefix)

    def log(self, folder: Path, name: str, index: int) -> Path:
        logs = (folder / name / str(index)).glob("*_0_log.out")
        return max(logs, key=lambda path: path.stat().st_mtime, default=folder / name / str(index))

    def stop_command(self, folder: Path, prefix: str) -> str:
        return f"pkill -f {shlex.quote(re.escape(str(folder / prefix)))}"


@dataclass(frozen=True)
class _LocalJob:
    """A job that waits for other jobs to end, and then runs.

    Attributes:
        job: the job.
        folder, after: as in `Engine.submit`.
    """

    job: Job
    folder: Path
    after: tuple[str, ...]

    def __call__(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, and nobody could end the job
        while any(state.name == name for name in self.after for state in _processes(self.folder, name)):
            time.sleep(LocalEngine.seconds_between_checks)
        self.job()


def _processes(folder: Path, prefix: str) -> list[JobState]:
    """The jobs that run, see `Engine.states`. They are found by the command lines of submitit's processes."""
    found: dict[tuple[str, int], JobState] = {}
    for process in psutil.process_iter(["cmdline"]):
        *_, last = process.info["cmdline"] or [""]  # submitit's last argument is the folder of the job
        job = Path(last)
        name = job.parent.name
        # Names are unique. A job also waits for jobs of other submissions, which have folders beside its own.
        if job.parent.parent.parent == folder.parent and name.startswith(prefix) and job.name.isdecimal():
            state = JobState(str(process.pid), name, int(job.name), running=True)
            found.setdefault((name, state.index), state)
    return list(found.values())


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as a value of CUDA_VISIBLE_DEVICES."""
    if _ALL_GPUS in os.environ:  # this process is a job, which has only some of the GPUs
        return list(filter(None, os.environ[_ALL_GPUS].split(",")))
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    return names[: torch.cuda.device_count()]


@contextmanager
def _without_interrupts() -> Generator[None]:
    """Processes that start in a `with` block go on after Ctrl-C, and after the terminal is closed.

    A terminal sends these signals to all processes that a command has started. A new process ignores the
    signals that its parent ignored.
    """
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

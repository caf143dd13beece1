"""The engine `local`: every worker is a process of this machine."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import submitit

from cfg_lab.errors import InputError
from cfg_lab.study.formats import count
from cfg_lab.workers.engine import Automatic, Job, JobState, check_count, check_count_or_auto

_MINUTES = 60 * 24 * 365
"""Time limit of a job. submitit needs one."""

_SECONDS_BETWEEN_CHECKS = 1.0


@dataclass(frozen=True, kw_only=True)
class LocalEngine:
    """Runs jobs as processes of this machine. Each worker works through its shards.

    Args:
        workers: number of processes, at least 1; "auto" is as many as the visible GPUs suffice
            for, or one per CPU core if there is no GPU.
        gpus: GPUs of each worker, at least 1. More than one is for model.device=balanced. Without a GPU
            it has no effect.
        threads: CPU threads of each worker, at least 1; "auto" divides the CPU cores between the workers.
        shards: number of shards, at least 1; "auto" is four times `workers`.

    Raises:
        InputError: a value is out of range.
    """

    workers: int | Automatic = "auto"
    gpus: int = 1
    threads: int | Automatic = "auto"
    shards: int | Automatic = "auto"

    name = "local"

    def __post_init__(self) -> None:
        for key in ("workers", "threads", "shards"):
            check_count_or_auto(key, getattr(self, key))
        check_count("gpus", self.gpus, 1)
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
        return 4 * self.worker_count if self.shards == "auto" else self.shards

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
            executor = submitit.LocalExecutor(folder / name / str(index))
            executor.update_parameters(timeout_min=_MINUTES, stderr_to_stdout=True)
            with _without_interrupts(), _variable("OMP_NUM_THREADS", str(threads)):
                executor.submit(_LocalJob(job, whole[index % len(whole)], folder, tuple(after)))

    def states(self, folder: Path, prefix: str) -> list[JobState]:
        return _processes(folder, prefix)

    def log(self, folder: Path, name: str, index: int) -> Path:
        logs = (folder / name / str(index)).glob("*_0_log.out")
        return max(logs, key=lambda path: path.stat().st_mtime, default=folder / name / str(index))

    def stop_command(self, folder: Path, prefix: str) -> str:
        return f"pkill -f {shlex.quote(str(folder / prefix))}"


@dataclass(frozen=True)
class _LocalJob:
    """A job that waits for other jobs to end, and then runs on its GPUs.

    Attributes:
        job: the job.
        gpus: the value of CUDA_VISIBLE_DEVICES: the GPUs of the worker, or "" for none.
        folder, after: as in `Engine.submit`.
    """

    job: Job
    gpus: str
    folder: Path
    after: tuple[str, ...]

    def __call__(self) -> None:
        os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus  # CUDA reads it at its first use, which is later
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # submitit ignores it, and nobody could end the job
        while any(state.name == name for name in self.after for state in _processes(self.folder, name)):
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        self.job()


def _processes(folder: Path, prefix: str) -> list[JobState]:
    """The jobs that run, see `Engine.states`. They are found by the command lines of submitit's processes."""
    found: dict[tuple[str, int], JobState] = {}
    for process in psutil.process_iter(["cmdline"]):
        *_, last = process.info["cmdline"] or [""]  # submitit's last argument is the folder of the job
        job = Path(last)
        name = job.parent.name
        if job.parent.parent == folder and name.startswith(prefix) and job.name.isdecimal():
            state = JobState(str(process.pid), name, int(job.name), running=True)
            found.setdefault((name, state.index), state)
    return list(found.values())


def _visible_gpus() -> list[str]:
    """The GPUs that this process may use, each as a value of CUDA_VISIBLE_DEVICES."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    names = visible.split(",") if visible else list(map(str, range(torch.cuda.device_count())))
    return names[: torch.cuda.device_count()]


@contextmanager
def _variable(name: str, value: str) -> Generator[None]:
    """Set an environment variable for the processes that start in a `with` block."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


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

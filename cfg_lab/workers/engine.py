"""The interface of engines. An engine starts jobs, and says which jobs wait or run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from cfg_lab.errors import InputError
from cfg_lab.study.arguments import check_count

Job = Callable[[], None]
"""The work of one job. It is pickled, and called in a process of its own."""

Automatic = Literal["auto"]


@dataclass(frozen=True)
class JobState:
    """A job that waits or runs.

    Attributes:
        id: Slurm's number of the job, such as "12_3" for task 3 of array 12. On this machine, the id of the
            job's process.
        name: the name that the job was submitted under. All jobs of an array have one name.
        index: number of the job in its array, from 0.
        running: whether the job runs. Otherwise it waits.
        held: whether the job waits until a person releases it.
    """

    id: str
    name: str
    index: int
    running: bool
    held: bool = False


class Engine(Protocol):
    """Starts jobs, and says which jobs wait or run."""

    @property
    def name(self) -> str:
        """The name with which hydra/launcher chooses the engine: "slurm"."""
        ...

    @property
    def worker_count(self) -> int:
        """Largest number of jobs that run at once."""
        ...

    @property
    def shard_count(self) -> int:
        """Number of shards that a sweep is cut into, if it has enough texts."""
        ...

    @property
    def uses_gpus(self) -> bool:
        """Whether the jobs have GPUs."""
        ...

    @property
    def seconds_between_checks(self) -> float:
        """How often the jobs may be listed."""
        ...

    @property
    def patience(self) -> float:
        """Seconds without any job after which a submission was ended from outside, if it has not ended."""
        ...

    def shards_of_jobs(self, shards: Sequence[int]) -> list[list[int]]:
        """Distribute shards over jobs.

        Returns:
            For each job, the numbers of its shards.
        """
        ...

    def submit(self, name: str, folder: Path, jobs: Sequence[Job], after: Sequence[str] = ()) -> None:
        """Submit jobs as one array. When this function returns, `states` knows the jobs.

        Args:
            name: name of the array. No other array has this name.
            folder: folder for submitit's files and the logs. The files of the array are in folder/name.
            jobs: the jobs.
            after: names of arrays whose jobs must have ended before the new jobs start. It does not matter
                how they end.

        Raises:
            InputError: the engine refuses the jobs.
        """
        ...

    def states(self, folder: Path, prefix: str) -> list[JobState]:
        """The jobs that wait or run, of the arrays whose names begin with `prefix`.

        Args:
            folder: the folder that was given to `submit`.
            prefix: beginning of the arrays' names.
        """
        ...

    def log(self, folder: Path, name: str, index: int) -> Path:
        """The file of a job's messages. It may not exist yet. `folder` and `name` are those of `submit`."""
        ...

    def stop_command(self, folder: Path, prefix: str) -> str:
        """The shell command that ends all present jobs of the arrays whose names begin with `prefix`."""
        ...


def check_launcher_count(key: str, value: Any, least: int) -> None:
    """Check a whole number of a launcher's config. `key` is its name in hydra.launcher.

    Raises:
        InputError: the value is not a whole number, or it is too small.
    """
    check_count(f"hydra.launcher.{key}", value, least)


def check_count_or_auto(key: str, value: Any, least: int = 1) -> None:
    """As `check_launcher_count`, for a value that can also be "auto"."""
    if value != "auto":
        try:
            check_launcher_count(key, value, least)
        except InputError as error:
            raise InputError(str(error).replace("must be", "must be auto or")) from error

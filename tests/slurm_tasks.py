"""Tasks for the Slurm of the tests. They are in a module of their own, which workers can import."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import submitit
from submitit.helpers import Checkpointable, DelayedSubmission, clean_env, environment_variables

WAYS = ["step", "script"]
"""How a worker runs: as a step of its job (srun), or as the batch script itself."""


def executor(folder: Path, way: str, **parameters: Any) -> submitit.SlurmExecutor:
    """submitit's executor for one of WAYS.

    With `use_srun=False` alone, nobody would get the signal before the time limit. Slurm sends it to steps,
    or with `B:` to the process of the batch script. So the worker takes the place of that process (`exec`).
    """
    delay = parameters.setdefault("signal_delay_s", 50)
    if way == "script":
        executor = submitit.SlurmExecutor(folder, python=f"exec {shlex.quote(sys.executable)}")
        parameters |= {"use_srun": False, "additional_parameters": {"signal": f"B:USR2@{delay}"}}
    else:
        executor = submitit.SlurmExecutor(folder)
    executor.update_parameters(**{"time": 5, "stderr_to_stdout": True, **parameters})
    return executor


def note(folder: Path) -> Path:
    """Write, as a task, that this attempt runs: the file `task.attempt` with the id of the process."""
    task, attempt = (os.environ.get(f"SLURM_{name}", "0") for name in ("ARRAY_TASK_ID", "RESTART_COUNT"))
    path = folder / f"{task}.{attempt}"
    path.with_suffix(".new").write_text(str(os.getpid()))
    return path.with_suffix(".new").rename(path)


def at_once(folder: Path) -> str:
    """A task that ends at once. It says what was in the folder when it started."""
    return " ".join(sorted(path.name for path in folder.iterdir()))


def until_told(folder: Path) -> str:
    """A task that ends when there is a file `go`, with the name of this attempt."""
    path = note(folder)
    while not (folder / "go").exists():
        time.sleep(0.05)
    return path.name


class UntilSignalled(Checkpointable):
    """A task that ends when it was requeued by its own checkpoint, with the number of checkpoints."""

    def __init__(self, checkpoints: int = 0) -> None:
        self.checkpoints = checkpoints

    def __call__(self, folder: Path) -> int:
        note(folder)
        while not self.checkpoints:
            time.sleep(0.05)
        return self.checkpoints

    def checkpoint(self, folder: Path) -> DelayedSubmission:
        """What the next attempt runs."""
        return DelayedSubmission(UntilSignalled(self.checkpoints + 1), folder)


def submit_another(folder: Path, way: str) -> str:
    """A task that submits a job. Returns its id.

    With this task's variables, submitit would take the job for this task. So the job gets none of Slurm's
    variables but the one that is not about the task.
    """
    cluster = os.environ["SLURM_CONF"]
    with clean_env(), environment_variables(SLURM_CONF=cluster):
        return executor(folder, way).submit(at_once, folder).job_id

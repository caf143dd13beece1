"""Running sweeps as a user does: in a process of their own, or in this process, which is faster."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG
from cfg_lab.sweep import run

QUICK = [
    "tracking=none",
    "report=false",
    "metrics=[perplexity,diversity,length]",
    "max_new_tokens=8",
    "samples=2",
]
"""Overrides that make a study small."""


def command(*arguments: str) -> list[str]:
    """The command line of a sweep, as a list."""
    return [sys.executable, "-m", "cfg_lab.sweep", *arguments]


def environment(**changes: str) -> dict[str, str]:
    """Environment variables for a command: a terminal of 160 columns, and no network."""
    return {**os.environ, "COLUMNS": "160", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", **changes}


_FORKS = multiprocessing.get_context("forkserver")
"""Starts processes that have imported the libraries. To import them takes several seconds of each command."""

_FORKS.set_forkserver_preload(["tests.cli", "cfg_lab.study.run", "transformers.modeling_utils", "optuna"])


def shell(*arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run a sweep in a process of its own, and return its output and exit status."""
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("stdout", "stderr")]
        process = _FORKS.Process(target=_sweep_in_fork, args=(arguments, *files, environment(), cwd))
        process.start()
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(
            command(*arguments), process.exitcode, *(file.read_text() for file in files)
        )


def _sweep_in_fork(
    arguments: Sequence[str], output: Path, errors: Path, variables: Mapping[str, str], cwd: Path | None
) -> None:
    """Become the process that `command` starts."""
    for file, stream in ((output, 1), (errors, 2)):
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(descriptor, stream)
        os.close(descriptor)
    os.environ.clear()
    os.environ.update(variables)
    if cwd is not None:
        os.chdir(cwd)
    sys.argv = ["cfg_lab.sweep", *arguments]
    sys.modules.pop("cfg_lab.sweep")  # it runs as __main__, as with the interpreter's option -m
    try:
        runpy.run_module("cfg_lab.sweep", run_name="__main__", alter_sys=True)
    finally:
        # The end of an interpreter, which a process of multiprocessing does not have: pools of processes are
        # shut down before anything waits for their processes.
        threading._shutdown()
        atexit._run_exitfuncs()


def wait_until(event: Callable[[], bool], process: subprocess.Popen[Any], seconds: float = 300) -> None:
    """Wait for an event that a running process brings about. Fail if the process ends before."""
    deadline = time.monotonic() + seconds
    while not event():
        assert process.poll() is None, "the process ended before the event"
        assert time.monotonic() < deadline, f"the event did not happen within {seconds} s"
        time.sleep(0.005)


def sweep(*arguments: str) -> list[dict[str, Any]]:
    """Run a sweep in this process: Hydra's grammar and composition, then the lab's own `run`."""
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(arguments)), None)[0]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        configs = [compose("sweep", overrides=job, return_hydra_config=True) for job in jobs]
    return run(configs, jobs)


def prompts_file(folder: Path, count: int = 3) -> str:
    """Write a file of prompts with negatives, and return its path."""
    path = folder / "prompts.jsonl"
    path.write_text(
        "".join(
            f'{{"id": "p{n}", "text": "Text {n}", "negative": "bad:0.{n + 1}, dull"}}\n' for n in range(count)
        )
    )
    return str(path)


def on(folder: Path, model: Path, name: str = "study") -> list[str]:
    """Overrides of a small study on a small model. Its results go to folder/results/name."""
    return [*placed(folder, model, prompts_file(folder), name), *QUICK]


def placed(folder: Path, model: Path, prompts: str, name: str) -> list[str]:
    """Overrides of a command on a small model and some prompts. Its results go to folder/results/name."""
    return [
        f"model.name={model}",
        "prompts=file",
        f"prompts.path={prompts}",
        f"results_root={folder / 'results'}",
        f"name={name}",
    ]


def refusal(folder: Path, model: Path, *overrides: str) -> str:
    """The sentence with which a sweep is refused. Checks that nothing was written."""
    with pytest.raises(InputError) as caught:
        sweep(*on(folder, model), *overrides)
    assert not (folder / "results").exists(), "something was written"
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence

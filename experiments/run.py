"""Running recorded studies.

The commands of a study are the lines of the block under "## Command" in its README.
"""

from __future__ import annotations

import gc
import io
import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from experiments.record import EXPERIMENTS


def names() -> list[str]:
    """Names of all studies that can be run: the folders with an `analyse.py`."""
    return sorted(path.parent.name for path in EXPERIMENTS.glob("*/analyse.py"))


def commands(readme: Path, size: str) -> list[list[str]]:
    """The commands of a study. Each is a list: the module that `python -m` runs, then its arguments.

    Args:
        readme: README.md of the study.
        size: smoke, cpu or gpu. It is added to each command, except cpu, which is every command's default.

    Raises:
        SystemExit: README.md has no block of commands, or a line of it is not `python -m …`.
    """
    block = re.search(r"^## Command\n.*?^```sh\n(.*?)^```", readme.read_text(encoding="utf-8"), re.M | re.S)
    if block is None:
        raise SystemExit(f"{readme} has no sh block under '## Command'")
    added = [] if size == "cpu" else [f"size={size}"]
    parsed: list[list[str]] = []
    for line in block[1].replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words and words[:2] != ["python", "-m"]:
            raise SystemExit(f"{readme}: a command must begin with python -m, got {line!r}")
        if words:
            parsed.append([*words[2:], *added])
    return parsed


def run(name: str, size: str) -> str:
    """Run the commands of a study, up to the first one that fails.

    At size smoke they run in this process, and their output is kept for the message. At other sizes each has
    a process of its own, because results have the peak memory of the process.

    Returns:
        Why the study failed; "" if it did not.
    """
    for command in commands(EXPERIMENTS / name / "README.md", size):
        line = f"python -m {shlex.join(command)}"
        _print(f"{name}: {line}")
        output = io.StringIO()
        if size == "smoke":
            with redirect_stdout(output), redirect_stderr(output):
                status = run_module(*command)
        else:
            status = subprocess.run([sys.executable, "-m", *command], check=False).returncode
        if status:
            return f"{output.getvalue()}{name} failed with status {status}: {line}"
    return ""


def run_module(module: str, *arguments: str) -> int:
    """Run a module in this process, as the interpreter's option -m does.

    Args:
        module: dotted name of the module.
        arguments: its command-line arguments.

    Returns:
        The exit status. After an exception it is 1, and the traceback is printed to stderr.
    """
    sys.argv = [module, *arguments]
    try:
        with warnings.catch_warnings():
            # runpy warns if an earlier command has imported the module.
            warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")
            runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            return 1
        return end.code or 0
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def run_studies(studies: Sequence[str], size: str) -> list[str]:
    """Run studies. One that fails does not stop the others.

    Returns:
        The names of the studies that failed, in the order of `studies`.
    """
    failed: set[str] = set()
    began = time.monotonic()
    outcomes = _at_once(studies) if size == "smoke" else ((name, run(name, size)) for name in studies)
    for number, (name, failure) in enumerate(outcomes, 1):
        if failure:
            failed.add(name)
            _print(failure)
        minutes = (time.monotonic() - began) / 60
        end = "failed" if failure else "done"
        _print(f"{name}: {end}; {number} of {len(studies)} studies in {minutes:.1f} minutes")
    return [name for name in studies if name in failed]


def _at_once(studies: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Run studies of size smoke, as many at once as there are cores: (name, what `run` returns) of each.

    Their commands are short, and mostly load libraries and models. So the processes are used again, and
    models stay loaded. The studies with the most commands begin.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that start now
    counts = {name: len(commands(EXPERIMENTS / name / "README.md", "smoke")) for name in studies}
    with ProcessPoolExecutor(
        os.cpu_count() or 1,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_prepare_for_short_commands,
    ) as pool:
        longest_first = sorted(studies, key=counts.__getitem__, reverse=True)
        running = {pool.submit(_run_smoke, name): name for name in longest_first}
        try:
            for study in as_completed(running):
                try:
                    failure = study.result()
                except BrokenExecutor:
                    failure = f"{running[study]} ended with its process, which was killed; is memory full?"
                yield running[study], failure
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _run_smoke(name: str) -> str:
    failure = run(name, "smoke")
    gc.collect()
    return failure


def _prepare_for_short_commands() -> None:
    """Keep models in memory. Collect garbage only between studies: it would take a tenth of the time."""
    from cfg_lab.models import keep_packaged_models

    keep_packaged_models()
    gc.disable()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when the one that started it has ended, also if it was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _print(line: str) -> None:
    """Print a line at once and in one piece: several processes print to the same place."""
    print(f"{line}\n", end="", flush=True)

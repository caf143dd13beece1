"""Runs recorded studies: `python -m experiments scale rules size=smoke`; without names, all studies.

The commands of a study are the lines of the block under "## Command" in its README.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from experiments.record import EXPERIMENTS, size_of


def names() -> list[str]:
    """Names of all studies that can be run: the folders with an `analyse.py`."""
    return sorted(path.parent.name for path in EXPERIMENTS.glob("*/analyse.py"))


def commands(readme: Path, size: str) -> list[list[str]]:
    """The commands of a study, each as a list of arguments.

    Args:
        readme: README.md of the study.
        size: smoke, cpu or gpu. It is added to each command, except cpu, which is every command's default.
    """
    block = re.search(r"^## Command\n.*?^```sh\n(.*?)^```", readme.read_text(encoding="utf-8"), re.M | re.S)
    if block is None:
        raise SystemExit(f"{readme} has no sh block under '## Command'")
    parsed = [shlex.split(line, comments=True) for line in block[1].replace("\\\n", " ").splitlines()]
    added = [] if size == "cpu" else [f"size={size}"]
    return [[sys.executable, *arguments[1:], *added] for arguments in parsed if arguments]


def run(name: str, size: str) -> None:
    """Run the commands of a study, one after another. At size smoke their output is shown only if they fail.

    Raises:
        SystemExit: a command failed.
    """
    began = time.monotonic()
    for command in commands(EXPERIMENTS / name / "README.md", size):
        print(f"{name}: python {shlex.join(command[1:])}", flush=True)
        done = subprocess.run(command, check=False, capture_output=size == "smoke", text=True)
        if done.returncode:
            raise SystemExit(
                f"{done.stdout or ''}{done.stderr or ''}error: {name} failed with status {done.returncode}"
            )
    print(f"{name}: done in {(time.monotonic() - began) / 60:.1f} minutes", flush=True)


def main(arguments: list[str]) -> None:
    """Run the studies that are named, and stop at the first one that fails.

    Studies of size smoke mostly start programs and load models, so as many run at once as there are cores.
    Studies of other sizes use all cores by themselves, and run one after another.
    """
    requested = [argument for argument in arguments if "=" not in argument]
    size = size_of([argument for argument in arguments if "=" in argument])
    unknown = [name for name in requested if name not in names()]
    if unknown:
        raise SystemExit(f"error: there is no study {unknown[0]!r}; the studies are {', '.join(names())}")
    at_once = os.cpu_count() or 1 if size == "smoke" else 1
    with ThreadPoolExecutor(at_once) as pool:
        studies = [pool.submit(run, name, size) for name in requested or names()]
        try:
            for study in studies:
                study.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


if __name__ == "__main__":
    main(sys.argv[1:])

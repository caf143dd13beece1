"""Where results come from: the command, the packages and the machine that made them."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import distributions
from pathlib import Path


def command_line(module: str = "cfg_lab.sweep", *words: str) -> str:
    """The command line of this process, quoted for a shell.

    Args:
        module: the module that the command runs.
        words: what comes before the arguments that are left in `sys.argv`, such as the task of a command.
    """
    return shlex.join(["python", "-m", module, *words, *sys.argv[1:]])


def environment_file() -> str:
    """The content of environment.json: start time, versions, git revision and machine, as JSON."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return json.dumps(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "git_revision": revision.stdout.strip() or None,
            "packages": _packages(),
        },
        indent=1,
    )


@cache
def _packages() -> dict[str, str]:
    """Installed packages with their versions. Reading them takes longer than all else in environment.json."""
    versions = {distribution.metadata["Name"]: distribution.version for distribution in distributions()}
    return dict(sorted(versions.items()))

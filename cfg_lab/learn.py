"""Training for guidance: `python -m cfg_lab.learn`, then a task and Hydra overrides.

Each task has a config conf/learn_<task>.yaml and a function, listed in `_TASKS`. With `--help` after the
task, the command shows all keys of the task.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import cast

import hydra
from hydra.utils import get_method
from omegaconf import DictConfig

from cfg_lab.commands import run_command, with_choices
from cfg_lab.options import CONFIG
from cfg_lab.study.console import errors_in_a_sentence, open_console, print_error

_TASKS: dict[str, tuple[str, str]] = {
    "policy": ("a network chooses the guidance scale at each step", "cfg_lab.learning.policy.learn_policy"),
    "distil": ("train a student: guidance in one forward", "cfg_lab.learning.distil.distil"),
    "tune": ("tune a model on a reward", "cfg_lab.learning.tune.tune"),
}
"""Task -> what it does in a few words, and the dotted path of the function that does it.

The function takes the composed config, with the names of the chosen options in hydra.runtime.choices.
"""


def main() -> None:
    """Read the task, which is the first argument, and let Hydra run it with the other arguments."""
    task = sys.argv[1] if len(sys.argv) > 1 else ""
    if task not in _TASKS:
        lines = [f"  {name:8} {words}" for name, (words, _) in _TASKS.items()]
        usage = "\n".join(
            ["Usage: python -m cfg_lab.learn TASK key=value …", "Tasks (TASK --help shows the keys):", *lines]
        )
        if task in ("-h", "--help"):
            print(usage)
            return
        print_error(
            open_console(stderr=True), f"the first argument must be one of {', '.join(_TASKS)}, got {task!r}"
        )
        sys.exit(2)
    sys.argv[:2] = [f"{sys.argv[0]} {task}"]
    config_name = f"learn_{task}"

    @hydra.main(config_path=str(CONFIG), config_name=config_name, version_base="1.3")
    def run(config: DictConfig) -> None:
        with errors_in_a_sentence():
            get_method(_TASKS[task][1])(with_choices(config))

    run_command(config_name, cast("Callable[[], None]", run))


if __name__ == "__main__":
    main()

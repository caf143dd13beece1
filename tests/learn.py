"""Runs `python -m cfg_lab.learn` in this process, which is faster than a process of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.utils import get_method
from omegaconf import open_dict

from cfg_lab.learn import _TASKS
from cfg_lab.options import CONFIG
from tests.cli import placed


def learn(task: str, *overrides: str) -> None:
    """Run a task as its command does: compose the config, then call the function of the task."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose(f"learn_{task}", overrides=list(overrides), return_hydra_config=True)
    choices: Any = config.hydra.runtime.choices
    with open_dict(config):
        config.hydra = {"runtime": {"choices": choices}}
    get_method(_TASKS[task][1])(config)


def prompts_file(folder: Path, count: int = 60) -> str:
    """Write a file of short prompts with negatives of their own, and return its path."""
    path = folder / "prompts.jsonl"
    lines = [
        f'{{"id": "p{n}", "text": "{chr(97 + n % 26)}{n}", "negative": "n{n % 7}"}}' for n in range(count)
    ]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def on(folder: Path, model: Path, name: str) -> list[str]:
    """Overrides of a small training on a small model. Its results go to folder/results/name."""
    return [*placed(folder, model, prompts_file(folder), name), "tracking=none"]

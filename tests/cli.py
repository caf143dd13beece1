"""Running sweeps as a user does: in a process of their own, or for speed in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from cfg_lab.options import CONFIG
from cfg_lab.sweep import run

QUICK = [
    "tracking=none",
    "report=false",
    "metrics=[perplexity,diversity,length]",
    "max_new_tokens=8",
    "samples=2",
]


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "cfg_lab.sweep", *arguments]


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", "WANDB_MODE": "offline", "HF_HUB_OFFLINE": "1", **changes}


def shell(*arguments: str, **kwargs: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment(), check=False, **kwargs
    )


def sweep(*arguments: str) -> list[dict[str, Any]]:
    """A sweep in this process: Hydra's grammar and composition, then the lab's own `run`."""
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(arguments)), None)[0]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        configs = [compose("sweep", overrides=job, return_hydra_config=True) for job in jobs]
    return run(configs, jobs)


def prompts_file(folder: Path, count: int = 3) -> str:
    path = folder / "prompts.jsonl"
    path.write_text(
        "".join(
            f'{{"id": "p{n}", "text": "Text {n}", "negative": "bad:0.{n + 1}, dull"}}\n' for n in range(count)
        )
    )
    return str(path)


def on(folder: Path, model: Path, name: str = "study") -> list[str]:
    """Overrides that put a small study on a small model."""
    return [
        f"model.name={model}",
        "prompts=file",
        f"prompts.path={prompts_file(folder)}",
        f"results_root={folder / 'results'}",
        f"name={name}",
        *QUICK,
    ]

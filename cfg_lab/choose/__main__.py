"""Recommend a setting of guidance: `python -m cfg_lab.choose prompts=mine.jsonl aim=sentiment budget=10m`.

Everything is chosen on one half of the prompts, within a budget of time. The evidence is from the other half.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import cast

import hydra
from omegaconf import DictConfig

from cfg_lab.commands import run_command, with_choices
from cfg_lab.options import CONFIG
from cfg_lab.study.console import errors_in_a_sentence

_BEGAN = time.monotonic()


@hydra.main(config_path=str(CONFIG), config_name="choose", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run the composed config. If the user can correct an error, print it and exit with status 2."""
    with errors_in_a_sentence():
        from cfg_lab.choose.run import run

        run(with_choices(config), _BEGAN)


if __name__ == "__main__":
    run_command("choose", cast("Callable[[], None]", main))

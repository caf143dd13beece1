"""Find a negative prompt: `python -m cfg_lab.suggest prompts=openers aim=sentiment`.

Everything is chosen on one half of the prompts. The evidence is from the other half. The result is
results/<name>/negatives.yaml, which `negatives=file` reads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import hydra
from omegaconf import DictConfig

from cfg_lab.commands import run_command, with_choices
from cfg_lab.options import CONFIG
from cfg_lab.study.console import errors_in_a_sentence


@hydra.main(config_path=str(CONFIG), config_name="suggest", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run the composed config. If the user can correct an error, print it and exit with status 2."""
    with errors_in_a_sentence():
        from cfg_lab.suggest.run import run

        run(with_choices(config))


if __name__ == "__main__":
    run_command("suggest", cast("Callable[[], None]", main))

"""Find a negative prompt: `python -m cfg_lab.suggest prompts=openers aim=sentiment`.

Everything is chosen on one half of the prompts. The evidence is from the other half. The result is
results/<name>/negatives.yaml, which `negatives=file` reads.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import cast

import hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

from cfg_lab.commands import run_command, with_choices
from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG
from cfg_lab.study.config import check_overrides
from cfg_lab.study.console import errors_in_a_sentence


@hydra.main(config_path=str(CONFIG), config_name="suggest", version_base="1.3")
def main(config: DictConfig) -> None:
    """Run the composed config. If the user can correct an error, print it and exit with status 2."""
    with errors_in_a_sentence():
        from cfg_lab.suggest.run import run

        run(with_choices(config))


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse overrides that would have no effect, and grids.

    Raises:
        InputError: an override sets what this command chooses itself, or names several values.
    """
    if any(argument.startswith("-") for argument in arguments):
        return  # one of Hydra's own options, such as --help
    check_overrides(arguments)
    for override in OverridesParser.create().parse_overrides(list(arguments)):
        line = str(override.input_line)
        if override.is_sweep_override():
            raise InputError(
                f"{line!r} names several values, but cfg_lab.suggest looks for one negative; run it once for "
                "each value, with another name"
            )
        if override.key_or_group == "guidance.scale":
            raise InputError(
                f"{line!r} has no effect here: each negative gets the scale at which it is as far from plain "
                "decoding as divergence says; set divergence=… instead"
            )


if __name__ == "__main__":
    with errors_in_a_sentence():
        check_arguments(sys.argv[1:])
    run_command("suggest", cast("Callable[[], None]", main))

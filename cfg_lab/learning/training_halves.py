"""The prompts of a training: the half that it sees, and the half that checks what was learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.prompts import Prompt
from cfg_lab.prompts.halves import Half, half_of


def check_half_is_free(config: Mapping[str, Any], use: str) -> None:
    """Check that the user has not chosen a half of the prompts, because the command does so itself.

    Args:
        config: the config of the command, as dicts and plain values.
        use: what the command does with the halves, to follow "this command".

    Raises:
        InputError: prompts.half has a value.
    """
    half = config["prompts"].get("half")
    if half is not None:
        raise InputError(f"prompts.half is {half!r}, but this command {use}; leave prompts.half=null")


def prompts_of_half(prompts: Sequence[Prompt], half: Half) -> list[Prompt]:
    """The prompts of a half, at least one.

    Raises:
        InputError: there is none.
    """
    of_half = [prompt for prompt in prompts if half_of(prompt) == half]
    if not of_half:
        raise InputError(
            f"none of the {len(prompts)} prompts is in the half {half}; use more prompts (prompts.limit)"
        )
    return of_half

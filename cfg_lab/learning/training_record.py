"""What a results folder was trained with, compared with what the command asks for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cfg_lab.errors import InputError


def check_same_training(
    name: str, folder: Path, kind: str, stored: Mapping[str, Any], requested: Mapping[str, Any]
) -> None:
    """Check that a folder was trained with the values that the command asks for.

    Args:
        name: name of the study.
        folder: its results folder.
        kind: what the folder holds, such as "a student that was trained".
        stored, requested: all keys that change the training, as plain values.

    Raises:
        InputError: some values differ. The message names their keys.
    """
    if stored == requested:
        return
    different = [key for key in requested if requested[key] != stored.get(key)]
    raise InputError(
        f"name={name!r}: {folder} holds {kind} with another value of {', '.join(different)}; "
        "choose another name"
    )

"""Checks of what a rule is given."""

from __future__ import annotations

import math
from typing import Any

from cfg_lab.errors import InputError


def check_number(
    key: str, value: Any, wanted: str, *, low: float = -math.inf, high: float = math.inf, whole: bool = False
) -> None:
    """Raise InputError unless value is a finite number in [low, high], a whole one if asked.

    Args:
        key: where in the config, after "guidance.".
        wanted: what would be right, in words.
    """
    kinds = int if whole else int | float
    number = isinstance(value, kinds) and not isinstance(value, bool) and math.isfinite(value)
    if not number or not low <= value <= high:
        raise InputError(f"guidance.{key} must be {wanted}, got {value!r}")


SMALLEST = 1e-30
"""What `low` is for numbers above 0."""

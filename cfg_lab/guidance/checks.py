"""Checks of the numbers in the configuration of a guidance rule."""

from __future__ import annotations

import math
from typing import Any

from cfg_lab.errors import InputError

SMALLEST = 1e-30
"""Lower bound of numbers that must be above 0."""


def check_number(
    key: str,
    value: Any,
    requirement: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    whole: bool = False,
) -> None:
    """Check that a value is a finite number in [low, high], and an integer if `whole` is True.

    Args:
        key: config key of the value, without "guidance.".
        requirement: which values are allowed, in words: "a number of nats above 0".

    Raises:
        InputError: the value is not allowed. The message has the key, the requirement and the value.
    """
    allowed_types = int if whole else int | float
    is_number = isinstance(value, allowed_types) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not low <= value <= high:
        raise InputError(f"guidance.{key} must be {requirement}, got {value!r}")

"""Formats numbers and lists as text for readers, and numbers for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MINUS = "\N{MINUS SIGN}"


def three_digits(value: float) -> str:
    """A number with three significant digits: "0.932", "4.61", "1,240". A dash for NaN and infinities."""
    if not math.isfinite(value):
        return "\N{EM DASH}"
    text = f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """A difference with its sign and three significant digits: "+0.093", "−1.2"."""
    return ("+" if value > 0 else "") + three_digits(value)


def interval(low: float, high: float) -> str:
    """An interval as text: "[0.01, 0.18]". "[no interval]" if an end is NaN or infinite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[no interval]"
    return f"[{three_digits(low)}, {three_digits(high)}]"


def p_value(p: float) -> str:
    """A p value as text: "p = 0.012", "p < 0.001". "p unknown" for NaN."""
    if not math.isfinite(p):
        return "p unknown"
    if p < 0.001:
        return "p < 0.001"
    return f"p = {round(p, 2):g}" if p >= 0.1 else f"p = {p:.2g}"


def count(number: int, noun: str) -> str:
    """A number with its noun, in the plural where needed: "1 cell", "2 cells", "1,200 texts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(words: Iterable[str], last: str = "and") -> str:
    """A list as text: "a", "a and b", "a, b and c". `last` is the word before the final item."""
    *first, final = list(words) or [""]
    return f"{', '.join(first)} {last} {final}" if first else final


def compact(value: Any, digits: int = 5) -> float | None:
    """A number rounded to `digits` significant digits for JSON. None for NaN, infinities and non-numbers."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None

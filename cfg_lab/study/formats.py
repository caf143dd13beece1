"""Numbers as a reader sees them, and as JSON carries them."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

MINUS = "\N{MINUS SIGN}"


def short(value: float) -> str:
    """Three significant digits: 0.932, 4.61, 1,240; a dash for what is not known."""
    if not math.isfinite(value):
        return "\N{EM DASH}"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", MINUS)


def signed(value: float) -> str:
    """With its sign, a difference: +0.093, −1.2."""
    return ("+" if value > 0 else "") + short(value)


def interval(low: float, high: float) -> str:
    """ "[0.01, 0.18]"; "[no interval]" where none can be given."""
    if not (math.isfinite(low) and math.isfinite(high)):
        return "[no interval]"
    return f"[{short(low)}, {short(high)}]"


def p_value(p: float) -> str:
    """ "p = 0.012", "p < 0.001"."""
    if not math.isfinite(p):
        return "p unknown"
    if p < 0.001:
        return "p < 0.001"
    return f"p = {round(p, 2):g}" if p >= 0.1 else f"p = {p:.2g}"


def count(number: int, noun: str) -> str:
    """ "1 cell", "2 cells", "1,200 texts"."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def joined(words: Iterable[str], last: str = "and") -> str:
    """ "a", "a and b", "a, b and c"."""
    *first, final = list(words) or [""]
    return f"{', '.join(first)} {last} {final}" if first else final


def compact(value: Any, digits: int = 5) -> float | None:
    """A JSON number of so many significant digits; None for NaN, infinities and what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return float(f"{number:.{digits}g}") if math.isfinite(number) else None

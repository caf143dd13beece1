"""A budget of time, and how its parts are used."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cfg_lab.errors import InputError

_SECONDS = {"s": 1, "m": 60, "h": 3600}


def parse_budget(text: object) -> float:
    """Read a time such as "90s", "10m" or "1.5h", as seconds.

    Raises:
        InputError: the text is no time above 0.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([smh])\s*", text) if isinstance(text, str) else None
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not seconds:
        raise InputError(f"budget must be a time such as 90s, 10m or 1.5h, got {text!r}")
    return seconds


def in_words(seconds: float) -> str:
    """A time as text: "45 s", "9 min 40 s", "1 h 5 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@dataclass(kw_only=True)
class Budget:
    """A budget of time.

    Attributes:
        seconds: the whole budget.
        began: when it began, on the clock of `time.monotonic`.
        parts: name of each finished part -> the seconds that it took.
    """

    seconds: float
    began: float
    parts: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def used(self) -> float:
        """Seconds since the budget began."""
        return time.monotonic() - self.began

    def stop_before(self, seconds: float) -> Callable[[], bool]:
        """A function to ask before each step: True if the step may end later than `seconds` of the budget.

        A step is expected to take as long as the step before it. Nothing is known of the first step.
        """
        asked: list[float] = []

        def stop() -> bool:
            expected = self.used - asked[-1] if asked else 0.0
            asked.append(self.used)
            return self.used + expected >= seconds

        return stop

    def finish(self, part: str) -> None:
        """Note that a part has ended. It began when the part before it ended."""
        self.parts[part] = self.used - sum(self.parts.values())

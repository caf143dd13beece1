"""What a metric is."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Protocol

from cfg_lab.records import Text


class Metric(Protocol):
    """Scores texts. A frozen dataclass, whose repr names the scorer: another repr scores again.

    `score([])` must work and load whatever is needed: it is called before anything is decoded, so that a
    missing package or model is known at once.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        """Columns of values, one a text, in order; NaN where a text cannot be scored."""
        ...


def scorer_key(metric: Metric) -> str:
    """Short hash of a metric's settings."""
    return blake2b(repr(metric).encode(), digest_size=6).hexdigest()

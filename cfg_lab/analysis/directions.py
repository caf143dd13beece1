"""Which direction of a metric is good."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Literal

Direction = Literal["higher", "lower"]

_BETTER: dict[str, Direction] = {
    "perplexity*": "lower",
    "evaluator_*": "lower",
    "bits_per_byte*": "lower",
    "toxicity*": "lower",
    "repeated*": "lower",
    "longest_repeat*": "lower",
    "compression*": "lower",
    "leakage*": "lower",
    "degenerate*": "lower",
    "self_bleu*": "lower",
    "sentiment*": "higher",
    "distinct*": "higher",
    "vendi*": "higher",
    "mauve*": "higher",
    "relevance*": "higher",
    "language*": "higher",
    "accuracy*": "higher",
    "exact_match*": "higher",
    "token_f1*": "higher",
    "correct*": "higher",
    "bleu*": "higher",
    "chrf*": "higher",
    "rouge*": "higher",
}
"""By name. What is not here has no direction: a length, or a label that could be wanted or not."""


def better(metric: str) -> Direction | None:
    """Whether higher or lower values of a metric are good; None where it has no direction."""
    return next((way for pattern, way in _BETTER.items() if fnmatchcase(metric, pattern)), None)

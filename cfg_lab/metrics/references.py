"""Scores of a text against the good answers of its prompt."""

from __future__ import annotations

import math
from collections.abc import Callable

from cfg_lab.metrics.text import Text


def best_score(text: Text, score: Callable[[str], float]) -> float:
    """The best score of a text over the references of its prompt; NaN if the prompt has no reference.

    Args:
        text: the scored text.
        score: the score of the text against one reference. Higher is better.
    """
    return max(map(score, text.prompt.references), default=math.nan)

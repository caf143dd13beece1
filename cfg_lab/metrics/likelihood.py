"""Formulas of likelihood metrics: from log-probs of a text's tokens to one number."""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_log_prob(log_probs: Sequence[float]) -> float:
    """Mean of the log-probs of a text's tokens, in nats, at most 0; NaN if there are no tokens."""
    return sum(log_probs) / len(log_probs) if log_probs else math.nan


def perplexity(log_probs: Sequence[float]) -> float:
    """exp of the mean negative log-prob per token, at least 1; NaN if there are no tokens."""
    return math.exp(-mean_log_prob(log_probs))


def bits_per_byte(log_probs: Sequence[float], text: str) -> float:
    """Summed negative log2-prob divided by the number of UTF-8 bytes, at least 0; NaN for an empty text.

    The result is also NaN if there are no log-probs, for example if a text is too long for an evaluator.
    """
    size = len(text.encode())
    return -sum(log_probs) / math.log(2) / size if size and log_probs else math.nan

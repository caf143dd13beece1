"""Metric: how far guidance has moved the distribution of a text from unguided decoding."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, ColumnInfo
from cfg_lab.metrics.likelihood import mean_log_prob
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class KLFromPlain:
    """Estimate of KL(guided || plain) per token, where plain is the model on the prompt without guidance.

        kl_from_plain = mean over tokens of (log guided(token) - log plain(token)),   nats

    Rules of guidance that are compared at the same scale push differently far. This column tells how far, so
    that they can be compared at the same divergence.

    The estimate is unbiased per token if tokens are drawn from the guided distribution itself
    (`sampling.temperature=1 sampling.top_p=1`). A lower temperature or a truncation draws likely tokens more
    often, so the number is then not a divergence. The number of a single text is noisy and can be below 0.
    Without guidance it is 0.

    A stop token is not part of the text and does not count. NaN for empty texts.
    """

    columns = MappingProxyType(
        {
            "kl_from_plain": ColumnInfo(
                meaning="estimate of KL(guided || unguided) per token, nats",
                languages=ANY_LANGUAGE,
                role="other",
            )
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"kl_from_plain": [_log_ratio(text) for text in texts]}


def _log_ratio(text: Text) -> float:
    """Mean log-ratio of the text's tokens; NaN if the text or its guided log-probs are missing."""
    if not text.guided_log_probs:
        return math.nan
    return mean_log_prob(text.guided_log_probs) - mean_log_prob(text.log_probs)

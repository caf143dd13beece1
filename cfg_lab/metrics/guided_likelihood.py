"""Metric: the likelihood of a text under the guided distribution from which it was drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_MOST_0, ColumnInfo
from cfg_lab.metrics.likelihood import mean_log_prob
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class GuidedLikelihood:
    """Mean log-likelihood per token under the guided distribution.

    guided_log_prob: mean log-prob of the new tokens under the guided, normalised distribution, in nats, at
    most 0. The log-probs are those before temperature and truncation, so values of different samplers can be
    compared. Values near 0 mean a confident distribution, not a good text. At scale 1 the value is
    -log(`perplexity`).

    A stop token is not part of the text and does not count. NaN for empty texts.
    """

    columns = MappingProxyType(
        {
            "guided_log_prob": ColumnInfo(
                meaning="mean log-prob of the tokens under the guided distribution, nats",
                bounds=AT_MOST_0,
                languages=ANY_LANGUAGE,
            )
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {"guided_log_prob": [mean_log_prob(text.guided_log_probs) for text in texts]}

"""Metric: how uncertain the guided distribution was when it wrote a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Entropy of the guided distribution, averaged over the tokens of a text.

    entropy: mean over the new tokens of -sum_x p(x) log p(x), in nats, at least 0. p is the guided
    distribution of the whole vocabulary, before temperature and truncation. Without guidance it is the
    model's own distribution. Sanchez et al. 2023 (arXiv:2306.17806, section 5) report this mean.

    A stop token is not part of the text and does not count. NaN for empty texts.
    """

    columns = MappingProxyType(
        {
            "entropy": ColumnInfo(
                meaning="mean entropy of the guided distribution per token, nats",
                bounds=AT_LEAST_0,
                role="other",
                languages=ANY_LANGUAGE,
            )
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        return {
            "entropy": [
                sum(text.entropies) / len(text.entropies) if text.entropies else math.nan for text in texts
            ]
        }

"""Metric: how much of a reference a text covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from cfg_lab.metrics.column_info import SHARE, ColumnInfo
from cfg_lab.metrics.text import Text

_ROUGE_TYPES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""Columns and the names that the rouge-score package uses for them."""


@dataclass(frozen=True, kw_only=True)
class Rouge:
    """ROUGE of a text against the prompt's `reference`, F measure, in [0, 1] (Lin 2004).

    rouge_1, rouge_2: overlap in unigrams and in bigrams.
    rouge_l: overlap in the longest common subsequence.

    The values are computed by the rouge-score package, which converts texts to lower case, keeps only letters
    and digits, and reduces words to their Porter stems (English). An empty text has the value 0. The values
    are NaN if the prompt has no reference.
    """

    columns = MappingProxyType(
        {
            column: ColumnInfo(meaning="overlap with the reference, ROUGE F1", better="higher", bounds=SHARE)
            for column in _ROUGE_TYPES
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        scorer = _load_scorer()
        scores_of_texts: list[list[Any]] = [
            [scorer.score(reference, text.text) for reference in text.prompt.references] for text in texts
        ]
        return {
            column: [
                max((float(score[rouge_type].fmeasure) for score in scores), default=math.nan)
                for scores in scores_of_texts
            ]
            for column, rouge_type in _ROUGE_TYPES.items()
        }


@lru_cache
def _load_scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes a second

    return RougeScorer(list(_ROUGE_TYPES.values()), use_stemmer=True)

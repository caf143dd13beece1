"""Metric: how much of a reference a text covers."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

_ROUGE_TYPES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}
"""Columns and the names that the rouge-score package uses for them."""


@dataclass(frozen=True, kw_only=True)
class Rouge:
    """ROUGE of a text against the prompt's `reference`, F measure, in [0, 1] (Lin 2004).

    rouge_1, rouge_2: overlap in unigrams and in bigrams.
    rouge_l: overlap in the longest common subsequence.

    The values are computed by the rouge-score package, from lower-cased words of letters and digits
    (`words.words`, but divided at apostrophes). Of texts in ASCII these are the package's own words. An empty
    text has the value 0. If a prompt has several references, the best value counts. The values are NaN if the
    prompt has no reference.

    Args:
        stem: reduce words of ASCII letters to their Porter stems ("cats" to "cat"). The stems are those of
            English, so use False for other languages with Latin letters.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            column: ColumnInfo(
                meaning="overlap with the reference, ROUGE F1",
                better="higher",
                bounds=SHARE,
                languages=ANY_LANGUAGE,
            )
            for column in _ROUGE_TYPES
        }
    )

    stem: bool = True

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        scorer = _load_scorer(self.stem)
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


class _Tokenizer:
    """The words that rouge-score compares."""

    def __init__(self, stem: bool) -> None:
        from nltk.stem.porter import PorterStemmer

        self._stem: Callable[[str], str] | None = PorterStemmer().stem if stem else None

    def tokenize(self, text: str) -> list[str]:
        """The words of a text. rouge-score calls this method."""
        parts = [part for word in words(text) for part in re.split("['’]", word)]
        if self._stem is None:
            return parts
        # rouge-score too leaves words of up to 3 letters as they are.
        return [self._stem(part) if part.isascii() and len(part) > 3 else part for part in parts]


@lru_cache
def _load_scorer(stem: bool) -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # imports nltk, which takes a second

    return RougeScorer(list(_ROUGE_TYPES.values()), tokenizer=_Tokenizer(stem))

"""How much of a reference a text covers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cfg_lab.metrics.text import Text

_KINDS = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


@dataclass(frozen=True)
class Rouge:
    """ROUGE of a text against the prompt's `reference`, F measure, in [0, 1] (Lin 2004).

    rouge_1, rouge_2: unigrams, bigrams; rouge_l: longest common subsequence. Of the rouge-score package:
    lower case, letters and digits, English words cut to Porter stems. An empty text has 0; NaN where the
    prompt has no reference.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        scorer = _scorer()
        found: list[Any] = [
            None if text.prompt.reference is None else scorer.score(text.prompt.reference, text.text)
            for text in texts
        ]
        return {
            column: [math.nan if one is None else float(one[kind].fmeasure) for one in found]
            for column, kind in _KINDS.items()
        }


@lru_cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer  # brings nltk, a second of imports

    return RougeScorer(list(_KINDS.values()), use_stemmer=True)

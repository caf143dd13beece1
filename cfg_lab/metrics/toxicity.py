"""Metric: whether a text is toxic."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, cast

from cfg_lab.metrics.column_info import ENGLISH, SHARE, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Toxicity:
    """Probability that an English text is profane or abusive, in [0, 1].

    NaN for empty texts and for texts in other letters than Latin.

    The classifier is the linear model of alt-profanity-check, on words and characters. It was trained on
    human labels of 200,000 forum comments and tweets. It is fast, but misses indirect insults. Its accuracy
    is in cards.json.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "toxicity": ColumnInfo(
                meaning="probability that the text is offensive, by a classifier of profanity",
                better="lower",
                bounds=SHARE,
                role="toxicity",
                languages=ENGLISH,
            )
        }
    )

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        not_empty = [unicodedata.normalize("NFC", text.text) for text in texts if text.text.strip()]
        probabilities = iter(_probabilities(not_empty) if not_empty else [])
        return {"toxicity": [float(next(probabilities)) if text.text.strip() else math.nan for text in texts]}


def _probabilities(texts: list[str]) -> Sequence[float]:
    import profanity_check  # loads its model and scikit-learn, which takes half a second

    return cast("Any", profanity_check).predict_prob(texts)

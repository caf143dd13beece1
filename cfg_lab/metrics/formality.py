"""Metric: how formal a text is, by its words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ENGLISH, SHARE, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

# 's counts only where it cannot be a genitive: "it's" is a contraction, "the river's" is not.
_CONTRACTION = re.compile(
    r".*n['’]t|.+['’](?:ll|re|ve|d|m)|y['’]all"
    r"|(?:it|that|there|here|he|she|what|who|where|how|when|let)['’]s"
    r"|gonna|wanna|gotta|kinda|sorta|lemme|gimme|dunno"
)


@dataclass(frozen=True, kw_only=True)
class Formality:
    """How formal an English text is, in [0, 1]. NaN for texts without words and in other letters than Latin.

    logistic(letters * mean letters per word + contractions * share of contractions + bias)

    A text without contractions has 0.5 at 4.6 letters per word. One contraction in a hundred words lowers the
    logit as much as 0.2 fewer letters per word. The weights are those of a logistic regression on 80 pairs of
    sentences, each a formal and an informal version of the same statement (experiments/metric_cards). How
    well the metric separates formal from casual texts is in cards.json.

    The length of words also depends on the topic, and guidance makes words longer whatever the negative is.
    So compare negatives at the same scale, on the same prompts.

    Args:
        letters: weight of the mean number of letters per word.
        contractions: weight of the share of words that are contractions, "gonna" and "kinda" included.
        bias: constant term of the regression.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "formality": ColumnInfo(
                meaning="how formal the words are, by their length and contractions; 1 is formal",
                bounds=SHARE,
                languages=ENGLISH,
            )
        }
    )
    letters: float = 1.96
    contractions: float = -35.1
    bias: float = -9.02

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        features = [formality_features(text.text) for text in texts]
        logits = [
            self.letters * letters + self.contractions * contractions + self.bias
            for letters, contractions in features
        ]
        return {"formality": [(1 + math.tanh(logit / 2)) / 2 for logit in logits]}


def formality_features(text: str) -> tuple[float, float]:
    """Mean letters per word, and the share of words that are contractions; NaN if there are no words."""
    words_of_text = words(text)
    if not words_of_text:
        return math.nan, math.nan
    letters = sum(len(re.sub(r"['’]", "", word)) for word in words_of_text)
    contractions = sum(1 for word in words_of_text if _CONTRACTION.fullmatch(word))
    return letters / len(words_of_text), contractions / len(words_of_text)

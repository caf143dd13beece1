"""How formal a text is, by its words."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

# 's is one only where it cannot be a genitive: it's, but not the river's.
_CONTRACTION = re.compile(
    r".*n['’]t|.+['’](?:ll|re|ve|d|m)|y['’]all"
    r"|(?:it|that|there|here|he|she|what|who|where|how|when|let)['’]s"
    r"|gonna|wanna|gotta|kinda|sorta|lemme|gimme|dunno"
)


@dataclass(frozen=True)
class Formality:
    """How formal a text is, in [0, 1], for English; NaN for texts without words.

    logistic(letters x letters a word + contractions x share of contractions + bias): a text without
    contractions is at 0.5 with 4.6 letters a word, and every contraction in a hundred words takes as much as
    0.2 letters a word. The weights are a logistic regression's on 80 pairs of sentences that say the same
    formally and informally (experiments/metric_cards); its probability is of the formal one.

    Long words are also a matter of topic, and guidance lengthens words whatever the negative: compare
    negatives at one scale, on the same prompts. `card("formality")` has how well it tells texts written to be
    formal from those written to be casual.

    Args:
        letters: weight of a letter a word (mean over words).
        contractions: weight of the share of words that are contractions, gonna and kinda included.
        bias: of the regression.
    """

    letters: float = 1.96
    contractions: float = -35.1
    bias: float = -9.02

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        found = [features(text.text) for text in texts]
        logits = [self.letters * long + self.contractions * short + self.bias for long, short in found]
        return {"formality": [(1 + math.tanh(logit / 2)) / 2 for logit in logits]}


def features(text: str) -> tuple[float, float]:
    """Letters a word, and the share of words that are contractions; NaN where there are no words."""
    found = words(text)
    if not found:
        return math.nan, math.nan
    letters = sum(len(re.sub(r"['’]", "", word)) for word in found)
    return letters / len(found), sum(1 for word in found if _CONTRACTION.fullmatch(word)) / len(found)

"""Is a text the expected answer?"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Answer:
    """Agreement with the prompt's `reference`, as SQuAD counts it (Rajpurkar et al. 2016, arXiv:1606.05250).

    exact_match: 1 where text and reference are equal when normalised, else 0.
    token_f1: harmonic mean of precision and recall of the normalised words, as bags, in [0, 1]; where either
    has none, 1 if both do.

    Normalised: lower case, without ASCII punctuation, without the words a, an, the, white space as one
    space. An empty text is scored; NaN where the prompt has no reference.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        pairs = [
            (normalised(text.text), normalised(text.prompt.reference))
            if text.prompt.reference is not None
            else None
            for text in texts
        ]
        return {
            "exact_match": [float(pair[0] == pair[1]) if pair else math.nan for pair in pairs],
            "token_f1": [_f1(*pair) if pair else math.nan for pair in pairs],
        }


def normalised(text: str) -> str:
    bare = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def _f1(text: str, reference: str) -> float:
    ours, theirs = text.split(), reference.split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))

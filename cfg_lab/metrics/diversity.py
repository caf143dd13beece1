"""How varied the words of a text are."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.records import Text


@dataclass(frozen=True)
class Diversity:
    """Distinct n-grams within each text, over lower-cased words.

    distinct_1, distinct_2, distinct_3: different n-grams divided by all n-grams of the text, in (0, 1]
    (after Li et al. 2016, arXiv:1510.03055, who count over a set of texts; here a text, so that lengths and
    intervals are a text's own).
    repeated_4: 1 - distinct_4, the share of 4-grams that occurred before in the text, in [0, 1)
    (rep-4 of Welleck et al. 2020, arXiv:1908.04319).
    NaN for texts with fewer words than n.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        words = [re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.text.lower()) for text in texts]
        columns = {f"distinct_{n}": [_distinct(text, n) for text in words] for n in (1, 2, 3)}
        return {**columns, "repeated_4": [1 - _distinct(text, 4) for text in words]}


def _distinct(words: list[str], n: int) -> float:
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else math.nan

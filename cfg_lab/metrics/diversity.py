"""How varied the words of a text are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


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
        found = [words(text.text) for text in texts]
        columns = {f"distinct_{n}": [distinct(text, n) for text in found] for n in (1, 2, 3)}
        return {**columns, "repeated_4": [1 - distinct(text, 4) for text in found]}


def distinct(words: list[str], n: int) -> float:
    """Different n-grams divided by all n-grams; NaN where there are none."""
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else math.nan

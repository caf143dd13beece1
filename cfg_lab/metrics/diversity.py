"""Metric: how varied the words of a text are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


def _distinct_column(n: int) -> ColumnInfo:
    return ColumnInfo(
        meaning=f"share of a text's {n}-grams that are different ones",
        better="higher",
        bounds=SHARE,
        role="diversity",
        languages=ANY_LANGUAGE,
    )


def repeated_column(n: int) -> ColumnInfo:
    """The description of the column repeated_<n>, such as repeated_4, for the two metrics that give it."""
    return ColumnInfo(
        meaning=f"share of a text's {n}-grams that occurred before in it",
        better="lower",
        bounds=SHARE,
        role="other",
        languages=ANY_LANGUAGE,
    )


@dataclass(frozen=True, kw_only=True)
class Diversity:
    """Distinct n-grams within each text, over lower-cased words (`words.words`).

    distinct_1, distinct_2, distinct_3: number of different n-grams divided by the number of n-grams, in
    (0, 1]. Li et al. 2016 (arXiv:1510.03055) count over a set of texts; here each text has its own value.
    repeated_4: 1 - distinct_4, the share of 4-grams that occurred before in the text, in [0, 1) (rep-4 of
    Welleck et al. 2020, arXiv:1908.04319).
    The values for n-grams are NaN for texts with fewer than n words.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            **{f"distinct_{n}": _distinct_column(n) for n in (1, 2, 3)},
            "repeated_4": repeated_column(4),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        words_of_texts = [words(text.text) for text in texts]
        return {
            **{f"distinct_{n}": [distinct_share(text, n) for text in words_of_texts] for n in (1, 2, 3)},
            "repeated_4": [1 - distinct_share(text, 4) for text in words_of_texts],
        }


def distinct_share(words: list[str], n: int) -> float:
    """Number of different n-grams divided by the number of n-grams; NaN if there are none."""
    grams = list(zip(*(words[i:] for i in range(n)), strict=False))
    return len(set(grams)) / len(grams) if grams else math.nan

"""Metric: how much a text repeats itself."""

from __future__ import annotations

import math
import unicodedata
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, SHARE, ColumnInfo
from cfg_lab.metrics.diversity import distinct_share, repeated_column
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


@dataclass(frozen=True, kw_only=True)
class Repetition:
    """Repetition within each text, over lower-cased words (`words.words`).

    repeated_2, repeated_3, repeated_4: share of n-grams that occurred before in the text, in [0, 1) (rep-n
    of Welleck et al. 2020, arXiv:1908.04319). NaN for texts with fewer words than n.
    longest_repeat: number of words of the longest run that occurs twice, divided by the number of words, in
    [0, 1). The two runs may overlap: a word repeated n times has (n - 1)/n. NaN for texts without words.
    compression: number of bytes of the text divided by the number of bytes of its raw DEFLATE at level 9,
    above 0. Higher is more repetitive. NaN for empty texts. Shaib et al. 2024 (arXiv:2403.00553) use gzip.
    Short texts compress badly, and scripts of two or three bytes per letter compress better than Latin. Below
    about 100 bytes the compressed text is often longer than the text. So compare only texts of similar length
    in the same language.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            **{f"repeated_{n}": repeated_column(n) for n in (2, 3, 4)},
            "longest_repeat": ColumnInfo(
                meaning="words of the longest run that occurs twice, as a share of the text",
                better="lower",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "compression": ColumnInfo(
                meaning="how much smaller the text gets when compressed; higher is more repetitive",
                better="lower",
                bounds=AT_LEAST_0,
                role="other",
                languages=ANY_LANGUAGE,
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        words_of_texts = [words(text.text) for text in texts]
        return {
            **{f"repeated_{n}": [1 - distinct_share(text, n) for text in words_of_texts] for n in (2, 3, 4)},
            "longest_repeat": [
                longest_repeat(text) / len(text) if text else math.nan for text in words_of_texts
            ],
            "compression": [_compression_ratio(text.text) for text in texts],
        }


def longest_repeat(words: Sequence[str]) -> int:
    """Number of words of the longest run of words that occurs at least twice; the runs may overlap."""
    # In sorted order, the two suffixes that share the longest beginning are neighbours.
    suffixes = sorted(list(words[start:]) for start in range(len(words)))
    return max((_common_prefix(first, second) for first, second in pairwise(suffixes)), default=0)


def _common_prefix(first: Sequence[str], second: Sequence[str]) -> int:
    """Length in words of the longest common prefix (equal beginning) of two sequences of words."""
    length = 0
    while length < min(len(first), len(second)) and first[length] == second[length]:
        length += 1
    return length


def _compression_ratio(text: str) -> float:
    data = unicodedata.normalize("NFC", text).encode()
    packed = zlib.compress(data, 9, wbits=-15)  # raw: a header of 6 bytes would be a tenth of a short text
    return len(data) / len(packed) if data else math.nan

"""Whether a text goes round in circles."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from cfg_lab.metrics.diversity import distinct
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


@dataclass(frozen=True)
class Repetition:
    """Repetition within each text, over lower-cased words.

    repeated_2, repeated_3, repeated_4: share of n-grams that occurred before in the text, in [0, 1) (rep-n
    of Welleck et al. 2020, arXiv:1908.04319); NaN for texts with fewer words than n.
    longest_repeat: words of the longest run that occurs twice, which may overlap, divided by all words, in
    [0, 1); NaN for texts without words. One word over and over is (n - 1)/n.
    compression: bytes of the text divided by bytes of its raw DEFLATE at level 9 (after Shaib et al. 2024,
    arXiv:2403.00553, who use gzip); above 0, higher is more repetitive; NaN for empty texts. Biased: short
    texts compress badly whatever they are (below about 100 bytes often under 1), so compare texts alike in
    length only.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        found = [words(text.text) for text in texts]
        columns = {f"repeated_{n}": [1 - distinct(text, n) for text in found] for n in (2, 3, 4)}
        return {
            **columns,
            "longest_repeat": [longest_repeat(text) / len(text) if text else math.nan for text in found],
            "compression": [_compression(text.text.encode()) for text in texts],
        }


def longest_repeat(words: Sequence[str]) -> int:
    """Length of the longest run that begins at two places."""
    suffixes = sorted(list(words[place:]) for place in range(len(words)))
    # In this order those that begin alike are neighbours.
    return max((_common(one, other) for one, other in pairwise(suffixes)), default=0)


def _common(one: Sequence[str], other: Sequence[str]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def _compression(text: bytes) -> float:
    packed = zlib.compress(text, 9, wbits=-15)  # raw: a header of 6 bytes would be a tenth of a short text
    return len(text) / len(packed) if text else math.nan

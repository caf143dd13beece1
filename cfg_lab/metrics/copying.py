"""Metric: how much of a text is copied from its prompt."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from types import MappingProxyType

from cfg_lab.metrics.column_info import ANY_LANGUAGE, AT_LEAST_0, SHARE, ColumnInfo
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

_NAME_OR_NUMBER = re.compile(r"(?<=[\w,;:'’\"”)-] )[A-Z][\w'’-]*|\b\d[\d.,]*\b")
"""A word with a capital letter that does not begin a sentence, or a number."""


@dataclass(frozen=True, kw_only=True)
class Copying:
    """How much of a text is copied from its prompt, over lower-cased words (`words.words`).

    The text is divided into fragments. From its first word on, a fragment is the longest sequence of words
    that occurs in the prompt. A word that does not occur in the prompt is in no fragment (Grusky et al. 2018,
    arXiv:1804.11283, figure 3).

    copied: share of words in fragments, their "coverage", in [0, 1].
    copied_span: sum of squared lengths of the fragments divided by the number of words, their "density": how
    long the fragment of a word is on average.
    novel_2: share of the text's pairs of neighbouring words that do not occur in the prompt, in [0, 1].
    unsupported: share of the text's names and numbers that do not occur in the prompt, in [0, 1] (Nan et al.
    2021, arXiv:2102.09130, use a model to find names). A name is a word with a capital letter inside a
    sentence, so the column is for languages like English. NaN without names and numbers.

    The values are NaN for texts without words, and novel_2 for texts of one word.
    """

    columns = MappingProxyType(
        {
            "copied": ColumnInfo(
                meaning="share of words in sequences copied from the prompt",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "copied_span": ColumnInfo(
                meaning="words of the copied sequence that a word is in, on average",
                bounds=AT_LEAST_0,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "novel_2": ColumnInfo(
                meaning="share of pairs of words that the prompt does not have",
                bounds=SHARE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
            "unsupported": ColumnInfo(
                meaning="share of names and numbers that the prompt does not have",
                better="lower",
                bounds=SHARE,
                role="relevance",
                rank=1,
                languages="languages that write only names with a capital letter",
            ),
        }
    )

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        rows = [_scores(text.text, text.prompt.text) for text in texts]
        return {column: [row[number] for row in rows] for number, column in enumerate(self.columns)}


def _scores(text: str, source: str) -> tuple[float, float, float, float]:
    """The value of each column."""
    text_words, source_words = words(text), words(source)
    if not text_words:
        return math.nan, math.nan, math.nan, math.nan
    lengths = fragment_lengths(text_words, source_words)
    known_pairs = set(pairwise(source_words))
    pairs = list(pairwise(text_words))
    names = [word for name in _NAME_OR_NUMBER.findall(text) for word in words(name)]
    known = set(source_words)
    return (
        sum(lengths) / len(text_words),
        sum(length**2 for length in lengths) / len(text_words),
        sum(pair not in known_pairs for pair in pairs) / len(pairs) if pairs else math.nan,
        sum(name not in known for name in names) / len(names) if names else math.nan,
    )


def fragment_lengths(text: Sequence[str], source: Sequence[str]) -> list[int]:
    """Lengths of the fragments of a text that are copied from a source, in words.

    >>> fragment_lengths("the cat sat on a mat".split(), "a dog and the cat sat down on a mat".split())
    [3, 3]
    """
    positions: dict[str, list[int]] = {}
    for position, word in enumerate(source):
        positions.setdefault(word, []).append(position)

    def match_length(start: int, position: int) -> int:
        """Number of equal words from `start` in the text and from `position` in the source on."""
        pairs = zip(text[start:], source[position:], strict=False)
        return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))

    lengths: list[int] = []
    start = 0
    while start < len(text):
        starts = positions.get(text[start], ())
        longest = max((match_length(start, position) for position in starts), default=0)
        if longest:
            lengths.append(longest)
        start += max(longest, 1)
    return lengths

"""Metric: how easy a text is to read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from cfg_lab.metrics.column_info import ENGLISH, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


@dataclass(frozen=True, kw_only=True)
class Readability:
    """Readability of an English text by Flesch's formulas.

    NaN for texts without words and for texts in other letters than Latin.

    reading_ease: 206.835 - 1.015 words/sentences - 84.6 syllables/words (Flesch 1948). Usually between 0
    (hard) and 100 (easy), but not bounded.
    reading_grade: 0.39 words/sentences + 11.8 syllables/words - 15.59, a school grade of the United States
    (Kincaid et al. 1975).

    A sentence ends at . ! ? or at the end of a line. If a text is cut in the middle of a sentence, the rest
    counts as a sentence. Syllables are counted by rules (see `syllables`), so compare values only with each
    other, not with values of other programs.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "reading_ease": ColumnInfo(
                meaning="Flesch's reading ease: 0 is hard, 100 easy", languages=ENGLISH
            ),
            "reading_grade": ColumnInfo(meaning="Flesch and Kincaid's school grade", languages=ENGLISH),
        }
    )

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        ratios = [_ratios(text.text) for text in texts]
        return {
            "reading_ease": [206.835 - 1.015 * length - 84.6 * weight for length, weight in ratios],
            "reading_grade": [0.39 * length + 11.8 * weight - 15.59 for length, weight in ratios],
        }


def _ratios(text: str) -> tuple[float, float]:
    """Mean words per sentence and mean syllables per word of a text; both NaN if there are no words."""
    words_of_text = words(text)
    if not words_of_text:
        return math.nan, math.nan
    sentences = sum(1 for sentence in re.split(r"[.!?]+(?=\s|$)|\n+", text) if words(sentence))
    return len(words_of_text) / sentences, sum(map(syllables, words_of_text)) / len(words_of_text)


def syllables(word: str) -> int:
    """Number of syllables of a lower-cased English word, at least 1.

    Each group of vowels is a syllable. A silent "e", "es" or "ed" at the end is not counted. A final "le"
    after a consonant is counted.
    """
    word = re.sub(r"['’].*", "", word)
    groups = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouy](e|es|ed)$", word) and not re.search(
        r"([^aeiouy]l(e|es)|(ch|sh|[sxzcg])es|[td]ed)$", word
    )
    return max(1, groups - bool(silent))

"""How easy a text is to read."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


@dataclass(frozen=True)
class Readability:
    """Flesch's formulas, for English; NaN for texts without words.

    reading_ease: 206.835 - 1.015 words/sentences - 84.6 syllables/words (Flesch 1948); about 0 (hard) to 100
    (easy), not bounded.
    reading_grade: 0.39 words/sentences + 11.8 syllables/words - 15.59, a school grade of the United States
    (Kincaid et al. 1975).

    Sentences end at . ! ? or a line's end; a text cut short counts its last piece as one. Syllables are
    counted by rule (see `syllables`), so texts compare with each other rather than with other programs.
    """

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        ratios = [_ratios(text.text) for text in texts]
        return {
            "reading_ease": [206.835 - 1.015 * length - 84.6 * weight for length, weight in ratios],
            "reading_grade": [0.39 * length + 11.8 * weight - 15.59 for length, weight in ratios],
        }


def _ratios(text: str) -> tuple[float, float]:
    """Words a sentence, syllables a word."""
    found = words(text)
    if not found:
        return math.nan, math.nan
    sentences = sum(1 for piece in re.split(r"[.!?]+(?=\s|$)|\n+", text) if words(piece))
    return len(found) / sentences, sum(map(syllables, found)) / len(found)


def syllables(word: str) -> int:
    """Groups of vowels; a silent final e, es or ed is none, a final consonant + le is one; at least 1."""
    word = re.sub(r"['’].*", "", word)
    groups = len(re.findall(r"[aeiouy]+", word))
    silent = re.search(r"[^aeiouy](e|es|ed)$", word) and not re.search(
        r"([^aeiouy]l(e|es)|(ch|sh|[sxzcg])es|[td]ed)$", word
    )
    return max(1, groups - bool(silent))

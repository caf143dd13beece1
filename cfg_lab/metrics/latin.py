"""Texts in Latin letters, for metrics whose model or formula was made for English."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from itertools import compress
from typing import Any, cast

import regex

from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

_LATIN = cast("Any", regex).compile(r"\p{Latin}")

_ScoreMethod = Callable[[Any, Sequence[Text]], dict[str, list[float]]]
"""The method `score` of a metric."""


def is_latin(text: str) -> bool:
    """Whether at least half of the words of a text begin with a Latin letter. Numbers do not count.

    A text without letters is Latin, so that it is scored as in any language.
    """
    first_letters = [word[0] for word in words(text) if word[0].isalpha()]
    latin = sum(_LATIN.match(letter) is not None for letter in first_letters)
    return 2 * latin >= len(first_letters)


def latin_only(
    strings: Callable[[Text], Sequence[str]] = lambda text: (text.text,),
) -> Callable[[_ScoreMethod], _ScoreMethod]:
    """Decorate the method `score` of a metric that is for English: other scripts get NaN and a warning.

    Only texts whose strings are mostly in Latin letters are given to the metric. The language is not
    detected: a text in another language with Latin letters gets a value.

    Args:
        strings: returns what the metric reads of a text, such as the text and its prompt.
    """

    def decorate(score: _ScoreMethod) -> _ScoreMethod:
        @wraps(score)
        def score_latin(self: Any, texts: Sequence[Text]) -> dict[str, list[float]]:
            latin = [all(map(is_latin, strings(text))) for text in texts]  # [texts]
            if not all(latin):
                warnings.warn(
                    f"{type(self).__name__.lower()} is for English. "
                    "It gives no score for texts that are mostly in other letters than Latin",
                    stacklevel=2,
                )
            scores = score(self, list(compress(texts, latin)))
            return {column: _with_nan(values, latin) for column, values in scores.items()}

        return score_latin

    return decorate


def _with_nan(values: Sequence[float], latin: Sequence[bool]) -> list[float]:
    """The values of the texts in Latin letters, and NaN for the others, in the order of the texts."""
    remaining = iter(values)
    return [next(remaining) if is_scored else math.nan for is_scored in latin]

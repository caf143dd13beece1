"""Scripts (systems of letters) of texts, for metrics that are not for every language."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, cast

import regex

from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words

HAN = cast("Any", regex).compile(r"\p{Han}")
"""One Chinese character."""

_LATIN = cast("Any", regex).compile(r"\p{Latin}")

Score = Callable[[Any, Sequence[Text]], dict[str, list[float]]]
"""The method `score` of a metric."""


def is_latin(text: str) -> bool:
    """Whether at least half of the words of a text begin with a Latin letter. Numbers do not count.

    A text without letters is Latin, so that it is scored as in any language.
    """
    first_letters = [word[0] for word in words(text) if word[0].isalpha()]
    latin = sum(_LATIN.match(letter) is not None for letter in first_letters)
    return 2 * latin >= len(first_letters)


def only_text(text: Text) -> Sequence[str]:
    """What most metrics read: the text alone."""
    return (text.text,)


def latin_only(strings: Callable[[Text], Sequence[str]] = only_text) -> Callable[[Score], Score]:
    """A decorator of a metric's `score`, for metrics whose model or formula was made for English.

    A text whose strings are mostly in another script is not given to the metric. It gets NaN in each column,
    and a warning says so. The language is not detected: a text in another language with Latin letters gets a
    value.

    Args:
        strings: returns what the metric reads of a text, such as the text and its prompt.
    """

    def decorate(score: Score) -> Score:
        @wraps(score)
        def score_latin(self: Any, texts: Sequence[Text]) -> dict[str, list[float]]:
            meant = [all(map(is_latin, strings(text))) for text in texts]
            if not all(meant):
                warnings.warn(
                    f"{type(self).__name__.lower()} is for English. "
                    "It gives no score for texts that are mostly in other letters than Latin",
                    stacklevel=2,
                )
            scores = score(self, [text for text, is_meant in zip(texts, meant, strict=True) if is_meant])
            return {column: _spread(values, meant) for column, values in scores.items()}

        return score_latin

    return decorate


def _spread(values: Sequence[float], meant: Sequence[bool]) -> list[float]:
    """Values of the texts that are meant, and NaN for the others, in the order of the texts."""
    remaining = iter(values)
    return [next(remaining) if is_meant else math.nan for is_meant in meant]

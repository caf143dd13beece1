"""Metric: whether a text is in the expected language."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import SHARE, ColumnInfo
from cfg_lab.metrics.text import Text


@dataclass(frozen=True, kw_only=True)
class Language:
    """Probability that a text is in a language, in [0, 1]. NaN for empty texts.

    The classifier is the naive Bayes model over byte n-grams of py3langid (after Lui & Baldwin 2012,
    langid.py). Its probabilities are normalised over all languages that it knows. It is unsure about texts of
    a few words. Its accuracy is in cards.json.

    Args:
        language: an ISO 639-1 code ("en"). None means the language that py3langid detects in each prompt's
            text, which can be wrong for prompts of a few words.
    """

    columns = MappingProxyType(
        {
            "language": ColumnInfo(
                meaning="probability that the text is in the prompt's language, or in a given one",
                better="higher",
                bounds=SHARE,
                role="other",
                languages="those that py3langid knows",
            )
        }
    )
    language: str | None = None

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        probabilities = _load_identifier()
        if self.language is not None and self.language not in probabilities("."):
            known = ", ".join(sorted(probabilities(".")))
            raise InputError(
                f"metrics.language.language must be one of {known} or null, got {self.language!r}"
            )
        return {
            "language": [
                probabilities(text.text)[self.language or language_of(text.prompt.text)]
                if text.text.strip()
                else math.nan
                for text in texts
            ]
        }


@lru_cache(maxsize=4096)
def language_of(text: str) -> str:
    """ISO 639-1 code of a text's most likely language."""
    probabilities = _load_identifier()(text)
    return max(probabilities, key=probabilities.__getitem__)


@lru_cache
def _load_identifier() -> Callable[[str], dict[str, float]]:
    """A function that returns {language code: probability} for a text."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def probabilities(text: str) -> dict[str, float]:
        by_code: dict[str, float] = {}
        for code, probability in identifier.rank(unicodedata.normalize("NFC", text)):
            by_code[code] = by_code.get(code, 0.0) + float(probability)
        return by_code

    return probabilities

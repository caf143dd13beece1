"""Is a text in the language it should be in?"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Language:
    """Probability that a text is in a language, in [0, 1]; NaN for empty texts.

    py3langid's naive Bayes over byte n-grams (after Lui & Baldwin 2012, langid.py), normalised over all its
    languages. Unsure of texts of a few words. Its measured accuracy: `card("language")`.

    Args:
        language: an ISO 639-1 code ("en"); None is the language that py3langid finds in each prompt's text,
            which may be wrong for prompts of a few words.
    """

    language: str | None = None

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        probabilities = _identifier()
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
    """The likeliest language's code."""
    probabilities = _identifier()(text)
    return max(probabilities, key=probabilities.__getitem__)


@lru_cache
def _identifier() -> Any:
    """text -> {code: probability}."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier: Any = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

    def probabilities(text: str) -> dict[str, float]:
        found: dict[str, float] = {}
        for code, probability in identifier.rank(text):
            found[code] = found.get(code, 0.0) + float(probability)
        return found

    return probabilities

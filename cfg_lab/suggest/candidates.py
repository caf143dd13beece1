"""Candidates: phrases that could be a negative prompt, from several origins."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.prompts import parse_phrases
from cfg_lab.suggest.opposites import ORDINARY_WORDS

QUESTION = (
    "Think of a bad answer to the request below. List ten adjectives that describe a bad answer, separated "
    "by commas.\n\nRequest: {prompt}"
)
"""What the model itself is asked for each prompt. {prompt} is the prompt."""

USER = "user"
"""The origin of the phrases that the user names."""

MOST_WORDS = 3
"""Largest number of words of a phrase that is read from the model's answer."""

_SEPARATORS = re.compile(r"[,;/\n\t•，、；。.:：]|\band\b")
_NUMBERING = re.compile(r"^[\s\-*–—]*(?:\(?\d+\s*[.):]?)?\s*")
_PHRASE = re.compile(r"[^\W\d_]+(?:[ '’-][^\W\d_]+)*")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A phrase that could be steered away from.

    Attributes:
        phrase: the phrase, one line without a weight.
        origins: where it comes from, such as ("model", "opposite").
    """

    phrase: str
    origins: tuple[str, ...]


def merge_candidates(phrases_by_origin: Mapping[str, Sequence[str]], most: int) -> list[Candidate]:
    """One candidate per phrase, with all its origins. Case does not distinguish phrases.

    Args:
        phrases_by_origin: the phrases of each origin, the most promising first.
        most: largest number of phrases that are taken from an origin; the user's are all taken.
    """
    spelling: dict[str, str] = {}
    origins: dict[str, list[str]] = {}
    for origin, phrases in phrases_by_origin.items():
        distinct = list(dict.fromkeys(" ".join(phrase.split()) for phrase in phrases))
        for phrase in distinct if origin == USER else distinct[:most]:
            key = phrase.casefold()
            spelling.setdefault(key, phrase)
            if origin not in origins.setdefault(key, []):
                origins[key].append(origin)
    return [Candidate(phrase=spelling[key], origins=tuple(names)) for key, names in origins.items()]


def phrases_in_answers(answers: Sequence[str]) -> list[str]:
    """Phrases in the model's answers to `QUESTION`, the most frequent first, and then the first to occur.

    Answers are split at commas, ends of lines and the like; numbering and quotation marks are left out. What
    has more than `MOST_WORDS` words or other signs than letters, hyphens and apostrophes is no phrase. A
    phrase counts once per answer.

    >>> phrases_in_answers(["1. Dull\\n2. Too vague", "dull, and 'harsh'", "I am a model that writes texts"])
    ['dull', 'too vague', 'harsh']
    """
    counts: Counter[str] = Counter()
    for answer in answers:
        found: dict[str, None] = {}
        for part in _SEPARATORS.split(answer):
            phrase = _NUMBERING.sub("", part).strip(" '\"“”‘’*!?()[]-").lower()
            if _PHRASE.fullmatch(phrase) and len(phrase.split()) <= MOST_WORDS:
                found[" ".join(phrase.split())] = None
        counts.update(list(found))
    return [phrase for phrase, _ in counts.most_common()]


def user_phrases(values: object, key: str = "candidates") -> list[str]:
    """Check the user's list of phrases.

    Raises:
        InputError: the value is no list of texts, or a text is not one phrase without a weight.
    """
    if not isinstance(values, list | tuple):
        raise InputError(f"{key} must be a list of phrases, such as '{key}=[sad,bleak]', got {values!r}")
    phrases: list[str] = []
    for value in cast("Sequence[object]", values):
        if not isinstance(value, str):
            raise InputError(f"{key} must be a list of texts, got {value!r}; write it in quotes")
        try:
            parsed = parse_phrases(value)
        except InputError as error:
            raise InputError(f"{key}: {error}") from None
        phrase, *others = parsed
        if others or phrase.weight != 1:
            raise InputError(
                f"{key} must be single phrases without weights, got {value!r}; each phrase is a candidate "
                "of its own, and weights are searched"
            )
        phrases.append(phrase.text)
    return phrases


def random_phrases(phrases: Sequence[str], draw: int) -> list[str]:
    """Phrases of ordinary words, as many and with as many words each as some phrases have.

    Args:
        phrases: the phrases whose number and lengths are taken.
        draw: number of the draw. Different draws give different words.
    """
    lengths = [len(phrase.split()) for phrase in phrases]
    generator = np.random.default_rng([20, draw])
    words = list(generator.permutation(np.array(ORDINARY_WORDS)))
    ends = np.cumsum(lengths)
    return [
        " ".join(map(str, (words * (1 + int(end) // len(words)))[end - length : end]))
        for end, length in zip(ends.tolist(), lengths, strict=True)
    ]

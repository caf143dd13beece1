"""Metric: how close a text is in meaning to what guidance should steer it away from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar, Protocol

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import ANY_LANGUAGE, COSINE, ENGLISH, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text
from cfg_lab.metrics.words import words


class WeightedPhrase(Protocol):
    """A phrase of a negative prompt with its weight."""

    @property
    def text(self) -> str: ...
    @property
    def weight(self) -> float: ...


@dataclass(frozen=True, kw_only=True)
class Leakage:
    """Similarity of a text to the phrases of its negative prompt, in [-1, 1]. Lower is less similar.

    leakage: weighted mean of the cosine similarities between the text and each phrase. The formula is
    sum of (w * cosine) / sum of |w|, where w is the weight of a phrase. Text and phrases are embedded with
    all-MiniLM-L6-v2, which is for English. NaN for empty texts, for prompts without negative phrases, and if
    the text or the phrases are in other letters than Latin. Each phrase is put into the template before it is
    embedded. The embedded template separates texts better than the phrase alone.
    leakage_verbatim: the same mean of 1 for each phrase whose words stand in the text, in this order and side
    by side, and 0 for each other phrase. For any language. NaN for empty texts and for prompts without
    negative phrases.

    If the setting negatives.phrases of the cell holds phrases, they are used. Otherwise the phrases of the
    prompt are used, for example for cells with negatives=empty.

    A single value depends mostly on how close the topic is to the phrases. So do not read single values: read
    the paired difference to the texts decoded with scale 1. Opposite words have similar embeddings, so a
    text with the opposite of a phrase can also get a high value. cards.json says how well this metric
    separates texts with the phrases' attribute from texts without it.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
        phrases: the function that reads weighted phrases from text such as "sad:0.8, bleak".
        template: the text that is embedded; {} stands for the phrase.
    """

    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "leakage": ColumnInfo(
                meaning="how near the text is in meaning to the negative's phrases, cosine of embeddings",
                better="lower",
                bounds=COSINE,
                rank=1,  # a weak measure: where another aim is scored, the page's question is about that aim
                languages=ENGLISH,
            ),
            "leakage_verbatim": ColumnInfo(
                meaning="share of the negative's phrases that the text contains word for word",
                better="lower",
                bounds=COSINE,
                role="other",
                languages=ANY_LANGUAGE,
            ),
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    phrases: Callable[[str], Sequence[WeightedPhrase]] = field(repr=False)
    template: str = "It is {}."

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"metrics.leakage.template must have {{}} in it, got {self.template!r}")

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        verbatim: list[float] = []
        for text in texts:
            phrases = self._phrases_of(text)
            verbatim.append(_weighted_mean(phrases, [contains(text.text, phrase.text) for phrase in phrases]))
        return self._similarity(texts) | {"leakage_verbatim": verbatim}

    @latin_only(lambda text: (text.text, text.prompt.negative or ""))
    def _similarity(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        embeddings = embed([text.text for text in texts])  # [texts, size], of length 1
        leakage: list[float] = []
        for text, embedding in zip(texts, embeddings, strict=True):
            phrases = self._phrases_of(text)
            sentences = [self.template.replace("{}", phrase.text) for phrase in phrases]
            leakage.append(_weighted_mean(phrases, embed(sentences) @ embedding))
        return {"leakage": leakage}

    def _phrases_of(self, text: Text) -> Sequence[WeightedPhrase]:
        """The negative phrases of a text's prompt. An empty text has none, because it is not scored."""
        negative = text.prompt.negative
        return self.phrases(negative) if negative and text.text.strip() else ()


def _weighted_mean(phrases: Sequence[WeightedPhrase], values: Sequence[float] | np.ndarray) -> float:
    """Mean of one value per phrase, weighted by the phrases' weights; NaN if no phrase has a weight."""
    weights = np.array([phrase.weight for phrase in phrases])
    return float(weights @ np.asarray(values) / np.abs(weights).sum()) if weights.any() else math.nan


def contains(text: str, phrase: str) -> bool:
    """Whether the words of a phrase stand in a text, in the same order and side by side.

    A phrase without words, such as "!!", is searched for as it is.

    >>> contains("A sad, bleak day", "sad bleak"), contains("an ambassador", "sad")
    (True, False)
    >>> contains("我很难过", "难过")
    True
    """
    words_of_phrase = words(phrase)
    if not words_of_phrase:
        return phrase in text
    words_of_text, length = words(text), len(words_of_phrase)
    starts = range(len(words_of_text) - length + 1)
    return any(words_of_text[start : start + length] == words_of_phrase for start in starts)

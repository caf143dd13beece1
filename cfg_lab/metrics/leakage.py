"""Metric: how close a text is in meaning to what guidance should steer it away from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Protocol

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import COSINE, ColumnInfo
from cfg_lab.metrics.text import Text


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
    all-MiniLM-L6-v2. NaN for empty texts and for prompts without negative phrases. Each phrase is put into
    the template before it is embedded. The embedded template separates texts better than the phrase alone.

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

    columns = MappingProxyType(
        {
            "leakage": ColumnInfo(
                meaning="how near the text is in meaning to the negative's phrases, cosine of embeddings",
                better="lower",
                bounds=COSINE,
            )
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    phrases: Callable[[str], Sequence[WeightedPhrase]] = field(repr=False)
    template: str = "It is {}."

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"metrics.leakage.template must have {{}} in it, got {self.template!r}")

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        embeddings = embed([text.text for text in texts])  # [texts, size], of length 1
        scores: list[float] = []
        for text, embedding in zip(texts, embeddings, strict=True):
            phrases = self.phrases(text.prompt.negative) if text.prompt.negative else ()
            weights = np.array([phrase.weight for phrase in phrases])
            if text.text.strip() and weights.any():
                sentences = [self.template.replace("{}", phrase.text) for phrase in phrases]
                similarities = embed(sentences) @ embedding
                scores.append(float(weights @ similarities / np.abs(weights).sum()))
            else:
                scores.append(math.nan)
        return {"leakage": scores}

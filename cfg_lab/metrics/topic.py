"""Metric: what a text is about, by zero-shot classification."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import ENGLISH, SHARE, ColumnInfo
from cfg_lab.metrics.latin import latin_only
from cfg_lab.metrics.text import Text

_TOPIC = ColumnInfo(
    meaning="share of this topic among those named, by embeddings", bounds=SHARE, languages=ENGLISH
)


@dataclass(frozen=True, kw_only=True)
class Topic:
    """Probability of each of several topics of an English text, in [0, 1]. The probabilities sum to 1.

    NaN for empty texts and for texts in other letters than Latin.

    The text and the description of each topic are embedded (all-MiniLM-L6-v2). The probabilities are the
    softmax of the cosine similarities of text and descriptions, divided by the temperature. Nothing is
    trained. A text about none of the topics still gets a probability for each. The accuracy of the topics of
    conf/metrics is in cards.json. The accuracy of other topics was not measured.

    The columns are topic_<name>, one per topic.

    Args:
        topics: one mapping {name: description} per topic; at least two topics.
        embedder: returns the embedding function. It is called only when texts are scored.
        temperature: temperature of the softmax. A lower value gives probabilities nearer to 0 and 1. The
            temperature does not change which topic is most likely.
    """

    version: ClassVar[int] = 2
    column_patterns = MappingProxyType({"topic_*": _TOPIC})
    topics: Sequence[Mapping[str, str]]
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    temperature: float = 0.03

    def __post_init__(self) -> None:
        if len(self._descriptions) < 2:
            raise InputError(f"metrics.topic.topics must name at least 2 topics, got {self._descriptions}")
        if not self.temperature > 0:
            raise InputError(f"metrics.topic.temperature must be above 0, got {self.temperature}")

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        return {f"topic_{name}": _TOPIC for name in self._descriptions}

    @property
    def _descriptions(self) -> dict[str, str]:
        return {name: description for topic in self.topics for name, description in topic.items()}

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        descriptions = embed(list(self._descriptions.values()))  # [topics, size]
        not_empty = np.array([bool(text.text.strip()) for text in texts], bool)
        logits = embed([text.text for text in texts]) @ descriptions.T / self.temperature  # [texts, topics]
        weights = np.exp(logits - logits.max(1, keepdims=True))
        shares = np.where(not_empty[:, None], weights / weights.sum(1, keepdims=True), math.nan)
        return {
            name: [float(share) for share in topic_shares]
            for name, topic_shares in zip(self.columns, shares.T, strict=True)
        }

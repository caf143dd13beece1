"""What a text is about, without training."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.text import Text


@dataclass(frozen=True)
class Topic:
    """Probability of each of some topics, in [0, 1], summing to 1; NaN for empty texts.

    Zero-shot: softmax over the cosine similarities of the text's embedding and those of the topics'
    descriptions (all-MiniLM-L6-v2), divided by the temperature. A text about none of them gets a share of
    each all the same. `card("topic_medicine")` has the measured accuracy of the topics that conf/metrics
    names; other topics are not measured.

    KVBuffer: topic_<name> for each.

    Args:
        topics: {name: description} each; at least two.
        embedder: gives the embedding function; called when first needed.
        temperature: of the softmax; lower is surer. It does not change which topic is likeliest.
    """

    topics: Sequence[Mapping[str, str]]
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    temperature: float = 0.03

    def __post_init__(self) -> None:
        if len(self._descriptions) < 2:
            raise InputError(f"metrics.topic.topics must name at least 2 topics, got {self._descriptions}")
        if not self.temperature > 0:
            raise InputError(f"metrics.topic.temperature must be above 0, got {self.temperature}")

    @property
    def _descriptions(self) -> dict[str, str]:
        return {name: description for topic in self.topics for name, description in topic.items()}

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        descriptions = embed(list(self._descriptions.values()))
        written = np.array([bool(text.text.strip()) for text in texts], bool)
        similarities = embed([text.text for text in texts]) @ descriptions.T / self.temperature
        weights = np.exp(similarities - similarities.max(1, keepdims=True))
        shares = np.where(written[:, None], weights / weights.sum(1, keepdims=True), math.nan)
        return {
            f"topic_{name}": [float(share) for share in column]
            for name, column in zip(self._descriptions, shares.T, strict=True)
        }

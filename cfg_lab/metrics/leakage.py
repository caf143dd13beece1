"""How near a text is to what it should have been steered away from."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.text import Text


class Phrase(Protocol):
    @property
    def text(self) -> str: ...
    @property
    def weight(self) -> float: ...


@dataclass(frozen=True)
class Leakage:
    """Similarity of a text to its negative prompt's phrases, in [-1, 1]; lower is farther from them.

    leakage: mean over phrases of the cosine similarity of text and phrase (all-MiniLM-L6-v2), weighted as
    the phrases are: sum of w cos over sum of |w|. NaN for empty texts and prompts without negative phrases.
    Each phrase stands in the template, which tells texts apart better than the bare phrase.

    The phrases are the cell's own (negatives.phrases), else those of the prompt; so cells with
    negatives=empty are measured against the prompt's phrases too. A value by itself says how the topic is
    related to the phrases; read its paired difference to scale 1. Embeddings place opposites close together:
    `card("leakage")` has how well this tells texts that show the phrases' attribute from texts that do not.

    Args:
        embedder: gives the embedding function; called when first needed.
        phrases: reads weighted phrases, "sad:0.8, bleak".
        template: what is embedded of a phrase, {} is the phrase.
    """

    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    phrases: Callable[[str], Sequence[Phrase]] = field(repr=False)
    template: str = "It is {}."

    def __post_init__(self) -> None:
        if "{}" not in self.template:
            raise InputError(f"metrics.leakage.template must have {{}} in it, got {self.template!r}")

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        embeddings = embed([text.text for text in texts])
        scores: list[float] = []
        for text, embedding in zip(texts, embeddings, strict=True):
            phrases = self.phrases(text.prompt.negative) if text.prompt.negative else ()
            weights = np.array([phrase.weight for phrase in phrases])
            if text.text.strip() and weights.any():
                named = [self.template.replace("{}", phrase.text) for phrase in phrases]
                similarities = embed(named) @ embedding
                scores.append(float(weights @ similarities / np.abs(weights).sum()))
            else:
                scores.append(math.nan)
        return {"leakage": scores}

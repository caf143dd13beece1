"""Texts as metrics see them, and an embedder whose vectors are worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cfg_lab import Prompt
from cfg_lab.metrics import Choice, Text


def text(words: str, **changes: Any) -> Text:
    """A text with one token per word, each of log-prob -1; other fields by name."""
    log_probs = (-1.0,) * len(words.split())
    values = {
        "id": words,
        "prompt": Prompt(id="1", text="?"),
        "text": words,
        "tokens": tuple(range(len(log_probs))),
        "log_probs": log_probs,
        "finish_reason": "stop",
    }
    return Text(**{**values, **changes})


def answer(words: str, *references: str) -> Text:
    """A text whose prompt has these references."""
    return text(words, prompt=Prompt(id="1", text="?", references=references))


def choice(right: bool, log_prob: float) -> Choice:
    """An answer of a benchmark whose log-probs are all equal."""
    logs = dict.fromkeys(("positive", "negative", "guided", "raw"), log_prob)
    return Choice(text="a", right=right, tokens=1, greedy=False, **logs)


def samples_of(prompt: str, *texts: str) -> list[Text]:
    """Texts of one prompt."""
    return [text(words, prompt=Prompt(id=prompt, text=prompt)) for words in texts]


class FakeEmbedder:
    """Embeds given texts as given vectors, scaled to length 1, and other texts as the first axis."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], size: int = 2) -> None:
        self.vectors, self.size = vectors, size

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        first_axis = [1.0, *[0.0] * (self.size - 1)]
        vectors = np.array([self.vectors.get(words, first_axis) for words in texts], np.float32)
        vectors = vectors.reshape(len(texts), self.size)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

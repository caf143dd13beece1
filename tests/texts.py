"""Texts as metrics see them, and an embedder whose vectors are worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cfg_lab import Prompt
from cfg_lab.metrics.text import Text


def text(words: str, **changes: Any) -> Text:
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


def answer(words: str, reference: str | None) -> Text:
    return text(words, prompt=Prompt(id="1", text="?", reference=reference))


def of(prompt: str, *texts: str) -> list[Text]:
    """Samples of one prompt."""
    return [text(one, prompt=Prompt(id=prompt, text=prompt)) for one in texts]


class Embeds:
    """A fake embedder: what is given, and the first axis for all else."""

    def __init__(self, vectors: Mapping[str, Sequence[float]], size: int = 2) -> None:
        self.vectors, self.size = vectors, size

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), self.size), np.float32)
        for place, one in enumerate(texts):
            vector = np.array(self.vectors.get(one, [1.0, *[0.0] * (self.size - 1)]), np.float32)
            found[place] = vector / np.linalg.norm(vector)
        return found

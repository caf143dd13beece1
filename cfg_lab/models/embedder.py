"""Sentence embeddings, for classifiers and semantic measures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from cfg_lab.models.packaged import packaged_embedder

_KEPT = 50_000
"""Embeddings remembered, 77 MB: several metrics ask for the same texts."""


class Embedder:
    """all-MiniLM-L6-v2: mean of the last hidden states, normalised (arXiv:1908.10084)."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModel.from_pretrained(folder).eval()
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [texts, 384], float32, of length 1; texts are cut at 256 tokens."""
        if len(self._known) + len(texts) > _KEPT:
            self._known.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._known]
        self._known.update(zip(new, self._embed(new), strict=True))
        found = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        for place, text in enumerate(texts):
            found[place] = self._known[text]
        return found

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str], batch_size: int = 32) -> np.ndarray:
        order = sorted(range(len(texts)), key=lambda i: len(texts[i]))  # alike in length, little padding
        found = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        for begin in range(0, len(order), batch_size):
            places = order[begin : begin + batch_size]
            batch = self.tokenizer(
                [texts[i] for i in places], padding=True, truncation=True, max_length=256, return_tensors="pt"
            )
            hidden = self.model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            found[places] = torch.nn.functional.normalize(mean, dim=1).numpy()
        return found


@lru_cache(maxsize=1)
def load_embedder() -> Embedder:
    """The packaged embedder, fetched at first use; one for all who ask."""
    return Embedder(packaged_embedder())

"""Sentence embeddings, for classifiers and semantic measures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

from cfg_lab.errors import errors_of_libraries
from cfg_lab.models.checkpoint.weights import load_pretrained
from cfg_lab.models.default_device import default_device
from cfg_lab.models.packaged import packaged_embedder

_BATCH_SIZE = 32
"""Number of texts of one forward on a CPU. Their activations should fit its cache."""

_BATCH_SIZE_OF_GPU = 256

_CACHE_SIZE = 50_000
"""Largest number of embeddings to remember (77 MB), because several metrics embed the same texts."""


class Embedder:
    """The sentence embedding model all-MiniLM-L6-v2 (arXiv:1908.10084), in float32.

    Args:
        folder: its files.
        device: where it runs; None is a GPU if there is one, else the CPU.
    """

    def __init__(self, folder: Path, device: torch.device | None = None) -> None:
        self.device = default_device() if device is None else device
        with errors_of_libraries(
            f"the embedder in {folder} cannot be loaded; delete the folder to fetch it again"
        ):
            self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = load_pretrained(AutoModel, str(folder), f"the embedder in {folder}").eval()
        self.model.to(self.device)
        self._cache: dict[str, np.ndarray] = {}

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Embeddings [texts, 384], float32, each of norm 1. Texts are cut after 256 tokens."""
        if len(self._cache) + len(texts) > _CACHE_SIZE:
            self._cache.clear()
        new = [text for text in dict.fromkeys(texts) if text not in self._cache]
        self._cache.update(zip(new, self._embed(new), strict=True))
        embeddings = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        for number, text in enumerate(texts):
            embeddings[number] = self._cache[text]
        return embeddings

    @torch.inference_mode()
    def _embed(self, texts: Sequence[str]) -> np.ndarray:
        """For each text the mean of the last hidden states of its tokens, scaled to norm 1."""
        # A batch holds texts of similar length, so that there is little padding.
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        embeddings = np.zeros((len(texts), self.model.config.hidden_size), np.float32)
        batch_size = _BATCH_SIZE if self.device.type == "cpu" else _BATCH_SIZE_OF_GPU
        for begin in range(0, len(order), batch_size):
            numbers = order[begin : begin + batch_size]
            batch = self.tokenizer(
                [texts[number] for number in numbers],
                padding=True,
                truncation=True,
                max_length=256,
                return_tensors="pt",
            ).to(self.device)
            hidden = self.model(**batch).last_hidden_state  # [texts, tokens, 384]
            mask = batch["attention_mask"][..., None]
            mean = (hidden * mask).sum(1) / mask.sum(1)
            embeddings[numbers] = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        return embeddings


@lru_cache(maxsize=1)
def load_embedder() -> Embedder:
    """The packaged embedder, fetched when it is first used. Every call returns the same object."""
    return Embedder(packaged_embedder())

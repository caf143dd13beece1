"""How near the texts of a cell are, as a whole, to reference texts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np

from cfg_lab.errors import InputError
from cfg_lab.metrics.jackknife import spread
from cfg_lab.metrics.text import Text

_SCALING = 5
"""The constant c of the divergence curve, as in the paper."""


@dataclass(frozen=True)
class Mauve:
    """MAUVE: the area under the divergence curve between texts and references, in (0, 1], 1 is the same.

    Embeddings (all-MiniLM-L6-v2) of both are reduced to 90 % of their variance and clustered together with
    k-means, one cluster to ten texts of the smaller side; the two histograms over clusters P and Q give the
    curve (exp(-c KL(Q|R)), exp(-c KL(P|R))), R = λP + (1-λ)Q, c = 5 (Pillutla et al. 2021,
    arXiv:2102.01454). The paper has 5,000 texts a side; with a few hundred only large differences show, and
    values compare only between cells with as many texts and the same references.

    mauve: of the cell, spread over its texts by the jackknife with the clusters held fixed, so the interval
    leaves out what clustering itself adds. NaN, with a warning, where a side has fewer than `min_texts`.

    Args:
        embedder: gives the embedding function; called when first needed.
        references: a .txt file with a text a line; None takes the `reference` of the cell's prompts. Another
            content of the same path is not noticed: give it another name.
        min_texts: at least 20.
    """

    together: ClassVar[bool] = True
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    references: str | None = None
    min_texts: int = 100

    def __post_init__(self) -> None:
        if self.min_texts < 20:
            raise InputError(f"metrics.mauve.min_texts must be at least 20, got {self.min_texts}")
        if self.references is not None and not Path(self.references).is_file():
            raise InputError(f"metrics.mauve.references is {self.references!r}, which is not a file")

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        if not texts:
            return {"mauve": []}
        references = self._references(texts)
        if min(len(texts), len(references)) < self.min_texts:
            warnings.warn(
                f"mauve is not computed: {len(texts)} texts and {len(references)} references, and each must "
                f"be at least metrics.mauve.min_texts={self.min_texts}",
                stacklevel=2,
            )
            return {"mauve": [math.nan] * len(texts)}
        labels, size = _clusters(embed([text.text for text in texts]), embed(references))
        own, theirs = labels[: len(texts)], labels[len(texts) :]
        reference = np.bincount(theirs, minlength=size) / len(theirs)

        def area(places: list[int]) -> float:
            return mauve_area(np.bincount(own[places], minlength=size) / len(places), reference)

        return {"mauve": spread(texts, area)}

    def _references(self, texts: Sequence[Text]) -> list[str]:
        if self.references is not None:
            return [line for line in Path(self.references).read_text().splitlines() if line.strip()]
        prompts = {text.prompt.id: text.prompt.reference for text in texts}
        return [reference for reference in prompts.values() if reference is not None]


def _clusters(texts: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, int]:
    """A cluster's number for each text and reference, and how many there are."""
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    pca: Any = PCA(0.9, svd_solver="full")
    size = max(2, round(min(len(texts), len(references)) / 10))
    kmeans: Any = KMeans(n_clusters=size, n_init=cast("Any", 5), random_state=0)
    return kmeans.fit_predict(pca.fit_transform(np.vstack([texts, references]))), size


def mauve_area(p: np.ndarray, q: np.ndarray) -> float:
    """Area under the divergence curve of two histograms, in (0, 1]."""
    shares = np.linspace(1e-6, 1 - 1e-6, 25)[:, None]
    mixed = shares * p + (1 - shares) * q  # [points, clusters]
    x = np.concatenate([[1.0], np.exp(-_SCALING * _divergence(q, mixed)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-_SCALING * _divergence(p, mixed)), [1.0]])
    return abs(float(np.trapezoid(y, x)))


def _divergence(p: np.ndarray, mixed: np.ndarray) -> np.ndarray:
    """KL(p || r) for each row r of mixed [points, clusters], nats; r is above 0 where p is."""
    there = p > 0
    return (p[there] * np.log(p[there] / mixed[:, there])).sum(1)

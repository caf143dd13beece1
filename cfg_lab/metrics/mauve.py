"""Metric: how close the texts of a cell (one combination of settings) are, as a set, to reference texts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

import numpy as np

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.metrics.column_info import ENGLISH, SHARE, ColumnInfo
from cfg_lab.metrics.jackknife import pseudo_values
from cfg_lab.metrics.latin import is_latin, latin_only
from cfg_lab.metrics.text import Text

_SCALING = 5
"""The constant c of the divergence curve, as in the paper."""


@dataclass(frozen=True, kw_only=True)
class Mauve:
    """MAUVE: the area under the divergence curve between texts and references, in (0, 1].

    1. Embed texts and references (all-MiniLM-L6-v2) and reduce them to 90 % of their variance.
    2. Cluster both with k-means, with one cluster per ten items of the smaller set. This gives two histograms
       over the clusters, P and Q.
    3. The curve is (exp(-c KL(Q|R)), exp(-c KL(P|R))) with R = λP + (1-λ)Q, 0 < λ < 1, and c = 5.

    MAUVE is 1 if both histograms are equal.

    Source: Pillutla et al. 2021 (arXiv:2102.01454), who use 5,000 texts and 5,000 references. With a few
    hundred texts only large differences show. Compare cells only if they have equally many texts and the same
    references.

    mauve: one number for the cell, turned into jackknife pseudo-values. The clusters are held fixed, so the
    interval does not include the uncertainty of the clustering. NaN, with a warning, if there are fewer than
    `min_texts` texts or fewer than `min_texts` references. The embeddings are for English: texts and
    references in other letters than Latin are left out.

    Args:
        embedder: returns the embedding function. It is called only when texts are scored.
        references: a .txt file with one text per line. With None, the references are the `reference` of each
            prompt. Texts are not scored again when the content of the file changes, so give changed
            references a new file name.
        min_texts: least number of texts and of references, at least 20.
    """

    whole_cell: ClassVar[bool] = True
    version: ClassVar[int] = 2
    columns = MappingProxyType(
        {
            "mauve": ColumnInfo(
                meaning="how close the texts are to human ones as a whole, by meaning; 1 is equal",
                better="higher",
                bounds=SHARE,
                role="diversity",
                rank=3,
                languages=ENGLISH,
            )
        }
    )
    embedder: Callable[[], Callable[[Sequence[str]], np.ndarray]] = field(repr=False)
    references: str | None = None
    min_texts: int = 100

    def __post_init__(self) -> None:
        if self.min_texts < 20:
            raise InputError(f"metrics.mauve.min_texts must be at least 20, got {self.min_texts}")
        if self.references is not None and not Path(self.references).is_file():
            raise InputError(f"metrics.mauve.references is {self.references!r}, which is not a file")

    @latin_only()
    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        embed = self.embedder()
        references = list(filter(is_latin, self._references(texts)))
        if not texts:
            return {"mauve": []}
        if min(len(texts), len(references)) < self.min_texts:
            warnings.warn(
                f"mauve is not computed: {len(texts)} texts and {len(references)} references, and each must "
                f"be at least metrics.mauve.min_texts={self.min_texts}",
                stacklevel=2,
            )
            return {"mauve": [math.nan] * len(texts)}
        labels, clusters = _cluster(embed([text.text for text in texts]), embed(references))
        text_labels, reference_labels = labels[: len(texts)], labels[len(texts) :]
        reference_histogram = np.bincount(reference_labels, minlength=clusters) / len(references)

        def area(indices: list[int]) -> float:
            histogram = np.bincount(text_labels[indices], minlength=clusters) / len(indices)
            return mauve_area(histogram, reference_histogram)

        return {"mauve": pseudo_values(texts, area)}

    def _references(self, texts: Sequence[Text]) -> list[str]:
        if self.references is not None:
            with errors_of_libraries(f"metrics.mauve.references is {self.references!r}, which is not UTF-8"):
                lines = Path(self.references).read_text(encoding="utf-8-sig").split("\n")
            return [line for line in lines if line.strip()]
        references = {text.prompt.id: text.prompt.references for text in texts}
        return list(chain.from_iterable(references.values()))


def _cluster(texts: np.ndarray, references: np.ndarray) -> tuple[np.ndarray, int]:
    """Cluster embeddings [texts, size] and [references, size].

    Returns:
        The cluster number of each text, then of each reference; and the number of clusters.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    pca: Any = PCA(0.9, svd_solver="full")
    clusters = max(2, round(min(len(texts), len(references)) / 10))
    kmeans: Any = KMeans(n_clusters=clusters, n_init=cast("Any", 5), random_state=0)
    return kmeans.fit_predict(pca.fit_transform(np.vstack([texts, references]))), clusters


def mauve_area(p: np.ndarray, q: np.ndarray) -> float:
    """Area under the divergence curve of two histograms [clusters] that sum to 1; in (0, 1]."""
    weights = np.linspace(1e-6, 1 - 1e-6, 25)[:, None]  # λ
    mixtures = weights * p + (1 - weights) * q  # [points, clusters]
    x = np.concatenate([[1.0], np.exp(-_SCALING * _divergences(q, mixtures)), [0.0]])
    y = np.concatenate([[0.0], np.exp(-_SCALING * _divergences(p, mixtures)), [1.0]])
    return abs(float(np.trapezoid(y, x)))


def _divergences(p: np.ndarray, mixtures: np.ndarray) -> np.ndarray:
    """KL(p || r) in nats for each row r of mixtures [points, clusters]. No r is 0 where p is above 0."""
    positive = p > 0
    return (p[positive] * np.log(p[positive] / mixtures[:, positive])).sum(1)

"""Rules that combine the branches' distributions into one. One small file a rule."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from cfg_lab.guidance.classifier_free import ClassifierFreeGuidance
from cfg_lab.guidance.finite import log_probs

__all__ = ["ClassifierFreeGuidance", "Guidance", "log_probs"]


class Guidance(Protocol):
    """Anything that combines log-probs; frozen and hashable, for it names a cell."""

    @property
    def needs_negatives(self) -> bool:
        """False where no step would look at a negative: then none is run."""
        ...

    def scale_at(self, step: int) -> float:
        """The scale in force at new token `step` (from 0)."""
        ...

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, steps: Tensor) -> Tensor:
        """Unnormalised guided log-probs [rows, vocab].

        positive [rows, vocab] and negatives [rows, branches, vocab] come from `log_probs`: float32,
        normalised, finite. weights [rows, branches] float32 as the requests give them; steps [rows] int64,
        new tokens so far.
        """
        ...

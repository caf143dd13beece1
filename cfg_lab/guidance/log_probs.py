"""Log-probs as rules see them: normalised, and finite."""

from __future__ import annotations

from torch import Tensor

FLOOR = -1e4
"""Below any log-prob a float32 softmax gives to a token that is possible, far from overflow at any scale."""


def log_probs(logits: Tensor) -> Tensor:
    """Logits [..., vocab] as log-probs, float32; impossible tokens (-inf in vocabularies masked beforehand)
    are at FLOOR, for -inf minus -inf and 0 times -inf are NaN. exp(FLOOR) is 0."""
    return logits.float().log_softmax(-1).clamp_(min=FLOOR)

"""Log-probs in the form that guidance rules take: normalised and finite."""

from __future__ import annotations

from torch import Tensor

FLOOR = -1e4
"""Log-prob of an impossible token.

It is far below -104, where a float32 probability becomes 0, and far from overflow at any scale.
"""


def log_probs(logits: Tensor) -> Tensor:
    """Convert logits [..., vocab] to log-probs [..., vocab], float32 and normalised.

    An impossible token (logit -inf, as in a padded vocabulary) gets the log-prob FLOOR instead of -inf,
    because -inf - -inf and 0 * -inf are NaN. Its probability is still 0, because exp(FLOOR) underflows.
    """
    return logits.float().log_softmax(-1).clamp_(min=FLOOR)

"""Log-probs without -inf."""

from torch import Tensor


def finite(log_probs: Tensor) -> Tensor:
    """Vocabularies masked beforehand hold -inf; -inf minus -inf and 0 times -inf are NaN.

    The floor is below any log-prob a float32 softmax gives and far from overflow at any sensible scale.
    """
    return log_probs.clamp(min=-1e4)

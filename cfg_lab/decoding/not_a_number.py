"""Where a guided log-prob that is not a number comes from."""

from __future__ import annotations

import math
from collections.abc import Mapping

from cfg_lab.decoding.model import CausalModel, NotANumberError
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.decoding.trace import TRACE_FIELDS
from cfg_lab.errors import ModelError
from cfg_lab.guidance.rule import Guidance

_POSITIVE, _NEGATIVE = map(TRACE_FIELDS.index, ("positive", "negative"))


def not_a_number(
    models: Mapping[str | None, CausalModel],
    formula: Guidance | None,
    sequence: SequenceState,
    trace: list[float],
) -> ModelError:
    """The error for a guided log-prob that is NaN.

    It names the model of the positive branch, the models of the negatives, or the guidance rule, whichever
    the NaN comes from.

    Args:
        formula: the formula of the guidance rule; None if no negative has run.
        sequence: the text, without the token.
        trace: the trace values of the token.
    """
    positive, negative = math.isnan(trace[_POSITIVE]), math.isnan(trace[_NEGATIVE])
    if formula is not None and not positive and not negative:
        return ModelError(
            f"guidance {type(formula).__name__} gave log-probs that are not numbers at step "
            f"{len(sequence.tokens)}; its `combine` must return numbers, and read its argument `scale`, not "
            "`self.scale`"
        )
    contexts = sequence.request.contexts
    broken = contexts[:1] if positive else contexts[1:]
    names = dict.fromkeys(models[name].name for name, _ in broken)
    return NotANumberError(" or ".join(names), sequence.request, len(sequence.tokens))

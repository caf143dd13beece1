"""The base class of guidance rules: scale and schedule, adaptive strength, modifiers, stopping."""

from __future__ import annotations

import copy
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Any, Protocol, Self, cast, overload

import numpy as np
import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.adaptive import Adaptive, Branches, NotAdaptive
from cfg_lab.guidance.checks import check_number
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.guidance.modifiers import Modifier
from cfg_lab.guidance.policy import LearnedScale
from cfg_lab.guidance.schedules import Constant, Schedule
from cfg_lab.guidance.stopping import NeverStop, Stopping


@overload
def is_off(scale: float) -> bool: ...
@overload
def is_off(scale: Tensor) -> Tensor: ...
def is_off(scale: float | Tensor) -> bool | Tensor:
    """Return whether guidance is off at this scale; for a tensor, elementwise.

    Where guidance is off, the distribution of the positive branch is used unchanged.
    """
    return scale == 1


class Guidance(Protocol):
    """The methods of a guidance rule that the decoder calls.

    A rule is frozen and hashable, because it is part of a request's id.
    """

    def scale_at(self, step: int) -> float:
        """Return the guidance scale planned for new token `step`, counted from 0.

        If guidance is off at this scale, no negative runs for the token.
        """
        ...

    def has_ended(self, divergences: Sequence[float]) -> bool:
        """Return True if guidance has ended, that is, if no later token needs a negative.

        Args:
            divergences: KL(positive || negative) of every token so far, in nats.
        """
        ...

    def guide(
        self, positive: Tensor, negatives: Tensor, weights: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Combine the branches of one step.

        Args:
            positive: log-probs [rows, vocab] from `log_probs`: float32, normalised, finite.
            negatives: log-probs [rows, branches, vocab], also from `log_probs`.
            weights: [rows, branches] float32, the weights of the negatives as the requests give them.
            scales: [rows], the planned scales from `scale_at`.

        Returns:
            The guided log-probs [rows, vocab], normalised, and the scales that were used [rows].
        """
        ...


_CONSTANT, _NOT_ADAPTIVE, _NEVER_STOP = Constant(), NotAdaptive(), NeverStop()


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """A guidance rule. `combine` is its formula; everything else is the same for all rules.

    Args:
        scale: guidance scale, finite; 1 is off, above 1 steers away from the negatives.
        schedule: gives a factor for each step, and (scale - 1) is multiplied by this factor. At a step with
            factor 0, no negative runs.
        adaptive: moves the scale at a step towards 1, depending on the branches' distributions.
        modifiers: changes to the negatives or to the guided distribution, as a sequence or as a mapping whose
            values are the modifiers. They are applied in the given order.
        stopping: the condition under which guidance ends for the rest of a text.

    Raises:
        InputError: an argument is wrong.
    """

    scale: float = 1.5
    schedule: Schedule = _CONSTANT
    adaptive: Adaptive = _NOT_ADAPTIVE
    modifiers: tuple[Modifier, ...] = ()
    stopping: Stopping = _NEVER_STOP

    def __post_init__(self) -> None:
        if isinstance(self.scale, np.generic):  # as from np.linspace; a Python number gives the same id
            object.__setattr__(self, "scale", self.scale.item())
        check_number("scale", self.scale, "a finite number (1 is off, 1.5 usual)", low=-1e6, high=1e6)
        methods = {"schedule": "share", "adaptive": "scale_in_force", "stopping": "has_ended"}
        for name, method in methods.items():
            value = getattr(self, name)
            # Only a dataclass has a name that stays the same from run to run, as a part of ids must.
            if not is_dataclass(value) or isinstance(value, type) or not hasattr(value, method):
                raise InputError(f"guidance.{name} must be an option of guidance/{name}, got {value!r}")
        object.__setattr__(self, "modifiers", _as_modifiers(self.modifiers))
        if isinstance(self.adaptive, LearnedScale):
            self.adaptive.check_rule(self)

    @abstractmethod
    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        """Apply the rule's formula.

        Args:
            positive, negatives, weights: as in `Guidance.guide`.
            scale: [rows, 1], the guidance scale of each row. Read this, not `self.scale`: the rows can be
                texts with different scales.

        Returns:
            The guided log-probs [rows, vocab], which need not be normalised.
        """

    @property
    def formula(self) -> Self:
        """This rule without scale, schedule and stopping condition, which `guide` does not read.

        Texts whose rules have equal formulas are guided by one call. The formula has no scale of its own, so
        a rule that reads `self.scale` gives NaN, which is an error, and never the scale of another text.
        """
        formula = copy.copy(self)
        for name, value in {"scale": math.nan, "schedule": _CONSTANT, "stopping": _NEVER_STOP}.items():
            object.__setattr__(formula, name, value)
        return formula

    def scale_at(self, step: int) -> float:
        share = self.schedule.share(step)
        return share * self.scale + (1 - share)  # exact at share 0 and share 1

    def has_ended(self, divergences: Sequence[float]) -> bool:
        return self.stopping.has_ended(divergences)

    def guide(
        self,
        positive: Tensor,
        negatives: Tensor,
        weights: Tensor,
        scales: Tensor,
        steps: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        for modifier in self.modifiers:
            negatives = modifier.modify_negatives(positive, negatives)

        def guided(scale: Tensor) -> Tensor:
            combined = self.combine(positive, negatives, weights, scale)
            for modifier in self.modifiers:
                combined = modifier.modify_guided(combined, positive, scale)
            return torch.where(is_off(scale), positive, log_probs(combined))

        branches = Branches(positive=positive, negatives=negatives, weights=weights, steps=steps)
        scale = self.adaptive.scale_in_force(scales[:, None], branches, guided)
        return guided(scale), scale[:, 0]


def guide_at(
    guidance: Guidance,
    positive: Tensor,
    negatives: Tensor,
    weights: Tensor,
    scales: Tensor,
    steps: Tensor,
) -> tuple[Tensor, Tensor]:
    """Call `Guidance.guide`. A rule with a learned scale is also given the number of each row's new tokens.

    Args:
        steps: [rows], int64, number of new tokens so far.
    """
    if isinstance(guidance, Rule) and isinstance(guidance.adaptive, LearnedScale):
        return guidance.guide(positive, negatives, weights, scales, steps)
    return guidance.guide(positive, negatives, weights, scales)


def formula_of(guidance: Guidance) -> Guidance:
    """What the `guide` of a rule depends on besides its arguments. Equal formulas can guide in one call."""
    return guidance.formula if isinstance(guidance, Rule) else guidance


def shares(weights: Tensor) -> Tensor:
    """Divide weights [rows, branches] by the sum of their absolute values in each row."""
    return weights / weights.abs().sum(1, keepdim=True)


def _as_modifiers(value: Any) -> tuple[Modifier, ...]:
    """Convert a sequence of modifiers, or a mapping whose values are modifiers, to a tuple of modifiers."""
    values: Any = cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else value
    modifiers: tuple[Any, ...] = (None,)
    if isinstance(values, Iterable):
        modifiers = tuple(cast("Iterable[Any]", values))
    if not all(isinstance(modifier, Modifier) and is_dataclass(modifier) for modifier in modifiers):
        raise InputError(
            "guidance.modifiers must be options of guidance/modifiers, as in guidance/modifiers=[plausible], "
            f"or none, as in guidance/modifiers=[]; got {value!r}"
        )
    return modifiers

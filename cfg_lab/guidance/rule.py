"""What all rules have in common: a scale over time, held back where wanted, and modifiers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.adaptive import Adaptive, NotAdaptive
from cfg_lab.guidance.checks import check_number
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.guidance.modifiers import Modifiers
from cfg_lab.guidance.schedules import Constant, Schedule


def is_off(scale: float) -> bool:
    """Whether a scale leaves the positive branch as it is. No negative runs at such a step."""
    return scale == 1


class Guidance(Protocol):
    """What the decoder asks of a rule; frozen and hashable, for it names a cell."""

    def scale_at(self, step: int) -> float:
        """The scale meant for new token `step` (from 0). Where it is 1 no negative is run."""
        ...

    def settled(self, divergences: Sequence[float]) -> bool:
        """Whether no later token will need a negative, given KL(positive || negative) of all so far."""
        ...

    def guide(
        self, positive: Tensor, negatives: Tensor, weights: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The guided distribution, log-probs [rows, vocab], and the scale in force [rows].

        positive [rows, vocab] and negatives [rows, branches, vocab] come from `log_probs`: float32,
        normalised, finite. weights [rows, branches] float32 as the requests give them; scales [rows].
        """
        ...


_ALWAYS, _AS_MEANT, _NEUTRAL = Constant(), NotAdaptive(), Modifiers()


@dataclass(frozen=True, kw_only=True)
class Rule(ABC):
    """A guidance rule: `combine` is its formula, all else is the same for every rule.

    Args:
        scale: finite; 1 is off for every rule, above 1 steers away from the negatives.
        schedule: how much of scale - 1 is in force at each step; negatives run only while it is not 0.
        adaptive: holds scale back by what the branches say at a step.
        modifiers: change what goes into the formula or what comes out; neutral by default.
        agree_below: nats; once KL(positive || negative) was below it for agree_steps tokens in a row,
            guidance ends and the negatives are run no more (adaptive guidance, arXiv:2312.12487). 0 is never.
        agree_steps: at least 1. In a beam search guidance ends once it holds for all hypotheses.
    """

    scale: float = 1.5
    schedule: Schedule = _ALWAYS
    adaptive: Adaptive = _AS_MEANT
    modifiers: Modifiers = _NEUTRAL
    agree_below: float = 0.0
    agree_steps: int = 4

    def __post_init__(self) -> None:
        if isinstance(self.scale, np.generic):  # of np.linspace; as a plain number it names the same cell
            object.__setattr__(self, "scale", self.scale.item())
        check_number("scale", self.scale, "a finite number (1 is off, 1.5 usual)", low=-1e6, high=1e6)
        for name, method in (("schedule", "share"), ("adaptive", "held_back"), ("modifiers", "after")):
            if not hasattr(getattr(self, name), method):
                raise InputError(
                    f"guidance.{name} must be an option of guidance/{name}, got {getattr(self, name)!r}; "
                    "to do without leave it out"
                )
        check_number("agree_below", self.agree_below, "a number of nats, 0 for never", low=0)
        check_number("agree_steps", self.agree_steps, "a whole number of at least 1", low=1, whole=True)

    @abstractmethod
    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        """The formula: log-probs of the branches (see `Guidance.guide`) and scale [rows, 1] to guided
        log-probs [rows, vocab], which need not be normalised."""

    def scale_at(self, step: int) -> float:
        share = self.schedule.share(step)
        return share * self.scale + (1 - share)  # exact at 0 and at 1

    def settled(self, divergences: Sequence[float]) -> bool:
        last = divergences[-self.agree_steps :]
        enough = self.agree_below > 0 and len(last) == self.agree_steps
        return enough and all(nats < self.agree_below for nats in last)

    def guide(
        self, positive: Tensor, negatives: Tensor, weights: Tensor, scales: Tensor
    ) -> tuple[Tensor, Tensor]:
        negatives = self.modifiers.before(positive, negatives)

        def guided(scale: Tensor) -> Tensor:
            combined = self.combine(positive, negatives, weights, scale)
            modified = self.modifiers.after(combined, positive, scale)
            return torch.where(scale == 1, positive, log_probs(modified))

        scale = self.adaptive.held_back(scales[:, None], positive, negatives, weights, guided)
        return guided(scale), scale[:, 0]


def shares(weights: Tensor) -> Tensor:
    """Weights [rows, branches] divided by the sum of their sizes."""
    return weights / weights.abs().sum(1, keepdim=True)

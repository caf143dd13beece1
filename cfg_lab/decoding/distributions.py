"""Guidance at one step: the logits of all branches become one distribution per sequence."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from cfg_lab.guidance import Guidance, log_probs
from cfg_lab.guidance.rule import guide_at


class Distributions(NamedTuple):
    """The next-token distributions of one step, with the negatives' weights and the guidance scales.

    There is one row per sequence.

    All distributions are normalised log-probs, finite and float32 (see `cfg_lab.guidance.log_probs`).
    """

    guided: Tensor  # [rows, vocab]
    positive: Tensor  # [rows, vocab]
    negatives: Tensor  # [rows, branches, vocab]; branches is 0 where no negative runs
    weights: Tensor  # [rows, branches], the weights of the negatives as the requests give them
    scales: Tensor  # [rows], the guidance scale in force

    def select(self, rows: list[int]) -> Distributions:
        """The distributions of the rows with the numbers `rows`, in this order. A number may be repeated."""
        return Distributions(*(tensor[rows] for tensor in self))


def guide(
    guidance: Guidance | None,
    positive: Tensor,
    negatives: Tensor,
    weights: Tensor,
    scales: Tensor,
    steps: Tensor,
) -> Distributions:
    """Combine the branches of each sequence by its guidance rule.

    Args:
        guidance: the rule. If it is None, the distribution of the positive branch is the guided distribution.
        positive: [rows, vocab] logits of the positive branch.
        negatives: [rows, branches, vocab] logits of the negative branches.
        weights: [rows, branches], float32, the weights of the negative branches.
        scales: [rows], the scale that the rule's schedule plans for this step.
        steps: [rows], int64, number of new tokens so far.
    """
    positive = log_probs(positive)
    negatives = log_probs(negatives)
    guided = positive
    if guidance is not None:
        guided, scales = guide_at(guidance, positive, negatives, weights, scales, steps)
    return Distributions(guided, positive, negatives, weights, scales)

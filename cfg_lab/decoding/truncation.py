"""Truncation of next-token distributions without a sort, with the same few operations at any entropy.

There are no data-dependent shapes, and the host never waits for a result: the operations can be captured in a
CUDA graph. Probabilities are added as whole numbers, so that the order of the additions changes nothing.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

_ONE = 2**43
"""The largest probability of a row as a whole number. The sum of 500,000 of these fits an int64."""


def truncate(scores: Tensor, top_k: Tensor | None, top_p: Tensor | None, min_p: Tensor | None) -> Tensor:
    """Apply top-k, top-p and min-p, in this order. For what they keep see `Sampling`.

    Of equally likely tokens those with lower ids come first.

    Args:
        scores: [rows, vocab], float32, log-probs divided by the temperature; -inf is an impossible token.
        top_k: [rows], int64; a row with 0 keeps all tokens. None if no row uses it.
        top_p: [rows]; a row with 1 keeps all tokens. None if no row uses it.
        min_p: [rows]. None if no row uses it.

    Returns:
        [rows, vocab], the scores; -inf for each token that is not kept.
    """
    largest = scores.amax(-1, keepdim=True)
    if top_k is not None:
        limit = torch.where(top_k > 0, top_k, scores.shape[-1])
        scores = _leading(scores, torch.ones_like(scores, dtype=torch.int64), limit)
    if top_p is not None:
        weights = ((scores - largest).exp() * _ONE).to(torch.int64)
        total = weights.sum(-1)
        limit = (top_p.double() * total).ceil().to(torch.int64)
        scores = _leading(scores, weights, torch.where(top_p < 1, limit, total + 1))
    if min_p is not None:
        scores = scores.masked_fill(scores < largest + min_p[:, None].log(), -math.inf)
    return scores


def _leading(scores: Tensor, weights: Tensor, limits: Tensor) -> Tensor:
    """Keep each token whose likelier tokens have a total weight below the limit.

    A token is kept if its score is above the score of the last token that is kept. This score is found in
    three steps, as in a radix sort: the upper 11 bits of its key, the next 11 and the last 10. Each step adds
    the weights of all tokens with equal bits, and takes the bits at which the total weight reaches the limit.

    Args:
        scores: [rows, vocab], float32.
        weights: [rows, vocab], int64, not negative; equal scores have equal weights.
        limits: [rows], int64, above 0.
    """
    keys = _ascending_keys(scores)
    prefix = torch.zeros_like(limits)[:, None]  # [rows, 1], the upper bits of the last kept token's key
    weight_above = torch.zeros_like(prefix)  # total weight of the tokens whose upper bits are larger
    limits = limits[:, None]
    for shift, bits in ((21, 11), (10, 11), (0, 10)):
        digits = (keys >> shift) & (2**bits - 1)
        in_prefix = (keys >> (shift + bits)) == prefix
        histogram = weights.new_zeros(len(keys), 2**bits).scatter_add_(1, digits, weights * in_prefix)
        above = weight_above + histogram.flip(-1).cumsum(-1).flip(-1) - histogram  # of the larger digits
        digit = (above >= limits).sum(-1, keepdim=True)  # the smallest one whose larger digits are below
        digit = digit.clamp(max=2**bits - 1)  # if the scores are NaN
        prefix = (prefix << bits) | digit
        weight_above = above.gather(1, digit)
    ties = keys == prefix
    tied_weights = weights * ties
    kept_tie = ties & (weight_above + tied_weights.cumsum(-1) - tied_weights < limits)
    return scores.masked_fill(~((keys > prefix) | kept_tie), -math.inf)


def _ascending_keys(scores: Tensor) -> Tensor:
    """Whole numbers from 0 to 2 ** 32 - 1, int64, ordered as the scores. Equal scores have equal keys."""
    bits = (scores + 0.0).view(torch.int32)  # -0.0 becomes 0.0
    return (bits ^ ((bits >> 31) & 0x7FFFFFFF)).to(torch.int64) + 2**31

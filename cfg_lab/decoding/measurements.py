"""The numbers kept of each step, instead of its logits."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.trace import Alternatives


def measure(
    guided: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, tokens: Tensor, scales: Tensor
) -> Tensor:
    """What is worth knowing of a step, [rows, 6]: the numbers of `records.Trace`, in its order.

    guided and positive [rows, vocab], negatives [rows, branches, vocab], all finite normalised log-probs;
    weights [rows, branches]; tokens [rows], the chosen ones; scales [rows], in force. Without negatives what
    they say is NaN.
    """
    if negatives.shape[1]:
        shares = weights / weights.abs().sum(1, keepdim=True)
        index = tokens[:, None, None].expand(-1, negatives.shape[1], 1)
        negative = vecdot(shares, negatives.gather(2, index)[..., 0])
        probs = positive.exp()
        cross = vecdot(probs[:, None], negatives)  # [rows, branches]
        divergence = vecdot(shares.abs(), vecdot(probs, positive)[:, None] - cross)
    else:
        negative = divergence = torch.full_like(guided[:, 0], math.nan)
    entropy = -vecdot(guided.exp(), guided)
    own = [_at(guided, tokens), _at(positive, tokens)]
    return torch.stack([*own, negative, entropy, divergence, scales], dim=1)


def alternatives(
    guided: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, count: int
) -> list[Alternatives]:
    """The `count` likeliest tokens of each row under each distribution; tensors as in `measure`."""
    found = [_likeliest(guided, count), _likeliest(positive, count)]
    if negatives.shape[1]:
        shares = weights / weights.abs().sum(1, keepdim=True)
        found.append(_likeliest(torch.einsum("rk,rkv->rv", shares, negatives), count))
    else:
        found.append([()] * len(guided))
    return [
        Alternatives(guided=own, positive=asked, negative=other)
        for own, asked, other in zip(*found, strict=True)
    ]


def _likeliest(log_probs: Tensor, count: int) -> list[tuple[tuple[int, float], ...]]:
    values, tokens = log_probs.topk(min(count, log_probs.shape[1]))
    return [
        tuple(zip(ids, numbers, strict=True))
        for ids, numbers in zip(
            cast("list[list[int]]", tokens.tolist()), cast("list[list[float]]", values.tolist()), strict=True
        )
    ]


def vecdot(x: Tensor, y: Tensor) -> Tensor:
    """Sum of products over the last dimension, without keeping the products."""
    return cast("Tensor", torch.linalg.vecdot(x, y))


def _at(log_probs: Tensor, tokens: Tensor) -> Tensor:
    return log_probs.gather(1, tokens[:, None])[:, 0]

"""The two losses of a student: GFT, and distillation towards the guided distribution."""

from __future__ import annotations

import torch
from torch import Tensor

NEGATIVE_FLOOR = -30.0
"""Smallest log-prob of a negative in the target, as in `opsd_ectr` of RLCSD (arXiv:2606.11709)."""


def gft_loss(student: Tensor, negative: Tensor, scale: float, target: Tensor) -> Tensor:
    """The loss of guidance-free training (GFT, arXiv:2501.15420) at each token, [tokens], in nats.

        mixed = softmax(beta * student + (1 - beta) * negative),   beta = 1 / scale
        loss = cross-entropy of mixed with the texts

    The texts are plain samples of the model on the prompt, with distribution p. The loss is smallest where
    mixed equals p. There the student is p^scale * negative^(1 - scale), normalised: classifier-free guidance.

    Args:
        student: logits of the student, [tokens, vocab].
        negative: log-probs of the model on the negative context, [tokens, vocab]. No gradient flows into it.
        scale: the guidance scale that the student learns, above 0.
        target: the sampled tokens [tokens], as in the paper; or p at each token as log-probs [tokens, vocab],
            which gives the mean of the loss over all tokens that could have been sampled.
    """
    beta = 1 / scale
    mixed = (beta * student + (1 - beta) * negative.detach()).log_softmax(-1)
    if target.dim() == 1:
        return -mixed.gather(1, target[:, None])[:, 0]
    return -(target.exp() * mixed).sum(-1)


def distillation_loss(student: Tensor, guided: Tensor, disagreement: Tensor, k: int) -> Tensor:
    """The weighted divergence of a student from the guided distribution at each token, [tokens], in nats.

    Target and weight are those of `opsd_ectr` (RLCSD, arXiv:2606.11709), for classifier-free guidance:

        guided = softmax((1 + alpha) * positive - alpha * max(negative, -30)),   alpha = scale - 1
        loss = D / (D + 1) * KL(guided || student),   D = KL(positive || negative)

    KL(guided || student) is taken over the k likeliest tokens of the guided distribution and the tail: all
    other tokens together. The weight leaves the student as it is where the negative says what the prompt
    says.

    The paper applies the formula of guidance to k tokens and the tail. Here guidance is applied to the whole
    vocabulary first, so that the target is the distribution that guidance samples from.

    Args:
        student: logits of the student, [tokens, vocab].
        guided: log-probs, normalised, [tokens, vocab].
        disagreement: D at each token, [tokens], in nats, at least 0.
        k: number of tokens that are compared one by one. If the vocabulary has no more, all of them are.
    """
    likeliest = guided.topk(min(k, guided.shape[-1]), -1).indices
    target = with_tail(guided, likeliest)
    divergence = (target.exp() * (target - with_tail(student.log_softmax(-1), likeliest))).sum(-1)
    return disagreement / (disagreement + 1) * divergence


def with_tail(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """Log-probs of k tokens, and of all other tokens together, [rows, k + 1].

    If there are no other tokens, [rows, k].

    Args:
        log_probs: normalised, [rows, vocab].
        tokens: the tokens that keep a log-prob of their own, [rows, k].
    """
    selected = log_probs.gather(1, tokens)
    if tokens.shape[1] == log_probs.shape[1]:
        return selected
    return torch.cat([selected, log_probs.scatter(1, tokens, -torch.inf).logsumexp(-1, keepdim=True)], -1)

"""The input of a metric: a completion with its prompt and what was recorded while decoding."""

from __future__ import annotations

from dataclasses import dataclass

from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Text:
    """A completion as a metric sees it.

    Attributes:
        id: content address; equal for equal model, contexts, guidance, sampling, seed and sample.
        text: the new text only, without stop token or stop string.
        tokens: ids of the new tokens, with the stop token if there is one.
        log_probs: log-prob of each token under the unguided model given the prompt, nats; without the stop
            token.
        finish_reason: "stop" or "length".
        guided_log_probs: log-prob of each token under the guided distribution, before temperature and
            truncation; without the stop token.
        tokens_read: number of tokens that the model of each branch has read, the positive branch first.
        tokens_read_in_full: what `tokens_read` would be if no negative branch had stopped early.
        parameters: number of parameters of each branch's model.
    """

    id: str
    prompt: Prompt
    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: str
    guided_log_probs: tuple[float, ...] = ()
    tokens_read: tuple[int, ...] = ()
    tokens_read_in_full: tuple[int, ...] = ()
    parameters: tuple[int, ...] = ()

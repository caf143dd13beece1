"""The input of a metric: a completion with its prompt and what was recorded while decoding."""

from __future__ import annotations

from dataclasses import dataclass

from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of the given answers to an item of a benchmark, with its summed log-probs in nats.

    Attributes:
        text: the answer.
        right: whether it is right.
        tokens: number of its tokens.
        positive: log-prob under the positive branch, which is the unguided model.
        negative: log-prob under the negatives, the mean over branches with their shares of the weight; NaN if
            there are no negatives.
        guided: log-prob under the guided distribution, normalised at each token.
        raw: scale * positive + (1 - scale) * negative, which is not a log-prob; NaN for all rules but plain
            classifier-free guidance.
        greedy: whether each of its tokens is the likeliest one under guidance.
    """

    text: str
    right: bool
    tokens: int
    positive: float
    negative: float
    guided: float
    raw: float
    greedy: bool


@dataclass(frozen=True, kw_only=True)
class Text:
    """A completion as a metric sees it.

    Attributes:
        id: hash of model, contexts, guidance, sampling, seed and sample.
        text: the new text only, without stop token or stop string.
        tokens: ids of the new tokens, with the stop token if there is one.
        log_probs: log-prob of each token under the unguided model given the prompt, in nats; without the
            stop token.
        finish_reason: "stop" if the text ended by itself, "length" if it was cut at max_new_tokens.
        guided_log_probs: log-prob of each token under the guided distribution, before temperature and
            truncation; without the stop token.
        entropies: entropy of the guided distribution at each token, before temperature and truncation, in
            nats; without the stop token.
        tokens_read: for each branch, the number of tokens that its model has read. A branch is a context on
            which a model runs. The positive branch comes first, then the negative ones.
        tokens_read_in_full: what `tokens_read` would be if no negative branch had stopped early.
        parameters: number of parameters of each branch's model.
        choices: in a benchmark, the given answers, of which `text` is the chosen one; else empty.
    """

    id: str
    prompt: Prompt
    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: str
    guided_log_probs: tuple[float, ...] = ()
    entropies: tuple[float, ...] = ()
    tokens_read: tuple[int, ...] = ()
    tokens_read_in_full: tuple[int, ...] = ()
    parameters: tuple[int, ...] = ()
    choices: tuple[Choice, ...] = ()

    @property
    def distinct_prompt(self) -> tuple[str, str | None]:
        """What the model was given: the prompt's text and system message.

        Metrics of a whole cell count prompts that are equal in both as one prompt, whatever their ids are.
        """
        return self.prompt.text, self.prompt.system

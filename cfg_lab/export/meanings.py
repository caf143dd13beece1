"""What each column of an export holds, in one phrase with its unit. The data card shows these phrases."""

from __future__ import annotations

from types import MappingProxyType

from cfg_lab.metrics.known_columns import column_info

_MEANINGS = MappingProxyType(
    {
        "cell": "id of the cell: one combination of settings",
        "prompt_id": "id of the prompt in its prompt set",
        "prompt": "text of the prompt: an instruction for a chat model, a text to continue for other models",
        "prompt_negative": "phrases to steer away from, with their weights",
        "sample": "number of the sample of this prompt in this cell, from 0",
        "completion": "id of the decoded text; rows of several cells can have the same text",
        "model_name": "name of the model that decoded the text",
        "model_fingerprint": "hash of the model's weights and tokenizer",
        "positive_ids": "token ids of the positive context",
        "negative_ids": "token ids of each negative context that ran; empty if the text is unguided",
        "negative_weights": "weight of each negative context that ran, no unit",
        "negative_models": "fingerprint of the model of each negative context; null is the model of the text",
        "text": "the decoded text, without the prompt",
        "others": "the next best texts of a beam search, best first",
        "finish_reason": '"stop" if the text ended by itself, "length" if it reached max_new_tokens',
        "tokens_read": "number of tokens that each context has read, the positive context first",
        "tokens_read_in_full": "the same numbers, had no negative context stopped early",
        "parameters": "number of parameters of the model of each context, the positive context first",
        "tokens": "ids of the new tokens, the stop token included",
        "pieces": "text of each new token",
        "trace_guided": "log-prob of each token under the guided distribution, nats",
        "trace_positive": "log-prob of each token under the positive context alone, nats",
        "trace_negative": "log-prob of each token under the mean of the negatives, nats; NaN if none ran",
        "trace_entropy": "entropy of the guided distribution at each token, nats",
        "trace_divergence": "KL(positive || negative) at each token, nats; NaN if no negative ran",
        "trace_scale": "guidance scale in force at each token, no unit; 1 is off",
        "alternatives_guided": "likeliest tokens of the guided distribution at each token, log-probs in nats",
        "alternatives_positive": "likeliest tokens of the positive context at each token, log-probs in nats",
        "alternatives_negative": "likeliest tokens of the negatives at each token, log-probs in nats",
        "choices": "given answers of a benchmark with their summed log-probs, nats; one of them is the text",
    }
)


def meaning_of(column: str) -> str:
    """What a column that is not a setting holds; "" if that is not known.

    Scores are described as their metric describes them: the range of a score says what its unit is.
    """
    if column in _MEANINGS:
        return _MEANINGS[column]
    info = column_info(column)
    low, high = info.bounds
    ends = f"from {low:g} to {high:g}" if high != float("inf") else f"at least {low:g}"
    spans = "" if low == float("-inf") and high == float("inf") else f"; {ends}"
    if low == float("-inf") and high != float("inf"):
        spans = f"; at most {high:g}"
    direction = f"; {info.better} is better" if info.better else ""
    return f"score: {info.meaning or 'defined by its config'}{spans}{direction}; null if not scored"
